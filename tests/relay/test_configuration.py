"""What HAProxy is told, and what it says to that."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conformance.lab import Lab
from conformance.lab.rooted import Root
from conformance.pki import issue_identities
from netpolicy.build import compile_topology
from netpolicy.intent.derive import derive_intents
from netpolicy.intent.model import FirewallIntent
from netpolicy.relay import emit_relay
from netpolicy.topology.load import load_topology
from netpolicy.topology.model import Assurance
from tests.lab.small import small_topology

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", name="intents")
def _intents() -> dict[str, FirewallIntent]:
    topology = load_topology(_ROOT / "topology.yaml").topology
    assert topology is not None
    return derive_intents(topology)


def test_only_firewalls_with_relayed_flows_have_a_relay(intents: dict[str, FirewallIntent]) -> None:
    """A flow that is inspected goes through, and nothing is relayed that no flow needs."""
    for intent in intents.values():
        terminated = [flow.id for flow in intent.flows if flow.assurance is Assurance.TERMINATE]
        assert sorted(each.flow for each in intent.relayed) == sorted(terminated)
        assert bool(emit_relay(intent)) == bool(terminated)


def test_each_flow_has_its_own_listener_that_the_wire_cannot_reach(intents: dict[str, FirewallIntent]) -> None:
    """Listeners are on the loopback device, at ports that no service has."""
    for intent in intents.values():
        text = emit_relay(intent).get("haproxy.cfg", "")
        bound = re.findall(r"^    bind (\S+):(\d+) ", text, re.MULTILINE)
        assert {address for address, _ in bound} <= {"127.0.0.1", "[::1]"}
        assert len(set(bound)) == len(bound) == 2 * len(intent.relayed)
        ports = {int(port) for _, port in bound}
        assert not any(port in ports_ for port in ports for flow in intent.flows for ports_ in flow.ports)


def test_every_next_peer_is_the_one_beside(intents: dict[str, FirewallIntent]) -> None:
    """The prefecture's firewall lets in what the municipality's relays, and asks the centre's."""
    files = emit_relay(intents["tokyo-fw"])
    clients = dict(line.split() for line in files["local-inquiry.clients.map"].splitlines())
    servers = dict(line.split() for line in files["local-inquiry.servers.map"].splitlines())
    assert clients["10.13.2.74"] == "urn:netpolicy:jukinet:firewall:tachikawa-line-fw"
    assert clients["10.13.210.10"] == "urn:netpolicy:jukinet:prefecture-server:tokyo-server"
    assert servers["10.240.2.10"] == "centre-resident-fw.jukinet.internal"


def test_haproxy_takes_every_configuration(intents: dict[str, FirewallIntent], tmp_path: Path) -> None:
    """``haproxy -c`` has nothing to say against any of them."""
    root = Root.find()
    assert root is not None, "make setup"
    topology = load_topology(_ROOT / "topology.yaml").topology
    assert topology is not None
    compile_topology(topology, tmp_path / "build")
    identities = issue_identities(topology, tmp_path / "identities", now=datetime.now(UTC))
    with Lab(topology, tmp_path / "build", root, inline=False) as lab:
        assert set(lab.relays) == {intent.id for intent in intents.values() if intent.relayed}
        for firewall, relay in lab.relays.items():
            relay.equip(identities.directory / firewall)
            assert relay.check() == ""


def test_the_same_topology_gives_the_same_bytes() -> None:
    """Nothing depends on when or where it is compiled."""
    topology = small_topology(assurance=Assurance.TERMINATE)
    once, again = ([emit_relay(each) for each in derive_intents(topology).values()] for _ in range(2))
    assert once == again
