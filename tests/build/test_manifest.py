"""What a build's manifest says."""

from __future__ import annotations

import json
from pathlib import Path

from ids_rules.lock import SidLock
from netpolicy.build import compile_files
from netpolicy.build.manifest import MANIFEST
from netpolicy.topology.load import load_topology

ROOT = Path(__file__).parents[2]


def test_manifest_tells_who_must_sign_for_a_firewall_and_which_cards_it_has() -> None:
    """What signs a bundle reads it there: manager, number of operators, address of each interface."""
    topology = load_topology(ROOT / "topology.yaml").topology
    found = json.loads(compile_files(topology, SidLock())[MANIFEST])["firewalls"]
    assert list(found) == list(topology.firewalls)
    two = {name for name, each in found.items() if each["signatures"] == 2}
    assert two == {"centre-resident-fw", "centre-agency-fw"}
    for name, firewall in topology.firewalls.items():
        assert found[name]["managed_by"] == firewall.managed_by
        assert found[name]["interfaces"] == {each.name: each.mac for each in firewall.interfaces}
