"""Every firewall of the miniature network boots its own bundle, from the image that all of them have."""

from __future__ import annotations

import os
from pathlib import Path

from appliance_image.vm.boot import Parts
from appliance_image.vm.every import Became, boot_every
from appliance_image.vm.image import Image
from appliance_image.vm.operators import TrialOperators
from netpolicy.topology.model import Topology


def test_every_firewall_enforces(
    network: Topology, compiled: Path, image: Image, operators: TrialOperators, tmp_path: Path
) -> None:
    """Each is known by its cards, and runs what was compiled for it."""
    parts = Parts(image, operators, tmp_path)
    found = boot_every(parts, network, compiled, network.firewalls, jobs=os.cpu_count() or 1)
    became = [each for each in found if isinstance(each, Became)]
    assert {each.firewall: each.failure for each in became} == dict.fromkeys(network.firewalls, "")
    for each in became:
        assert each.events[-1].text == f"{each.firewall} serial 1 enforcing"
