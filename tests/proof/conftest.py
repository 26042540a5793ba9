"""A small network that proves, and its files to be changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import time
from pathlib import Path

import pytest

from netpolicy.build import compile_topology
from netpolicy.topology.model import Invariant, Limits, Selector, Title, Topology, Weekday, Window
from tests.lab.small import PLACE, small_topology


@pytest.fixture(name="topology")
def _topology() -> Topology:
    """Return the small network with limits and service hours, and with something that must never be."""
    topology = small_topology("proof")
    window = Window((Weekday.MON, Weekday.TUE, Weekday.FRI), time(20), time(6))
    limits = Limits(rate=10, connections=20, windows=(window,))
    flows = {name: replace(flow, limits=limits) for name, flow in topology.flows.items()}
    never = Invariant("apart", Title("apart"), Selector(nodes=("beta",)), Selector(nodes=("gamma",)), PLACE)
    return replace(topology, flows=flows, invariants={never.id: never})


@pytest.fixture(name="build")
def _build(topology: Topology, tmp_path: Path) -> Path:
    compile_topology(topology, tmp_path / "build")
    return tmp_path / "build"
