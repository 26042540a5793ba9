"""A small network that proves, and its files to be changed; and the miniature network, as two opinions see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import time
from pathlib import Path

import pytest

from netpolicy.build import compile_topology
from netpolicy.intent.check import check_topology
from netpolicy.proof.case import Case, prepare
from netpolicy.proof.fields import Family
from netpolicy.topology.model import Invariant, Limits, Selector, Title, Topology, Weekday, Window
from tests.docs.source import ROOT
from tests.lab.small import PLACE, small_topology
from tests.proof.asking import second_opinion
from tests.proof.second import Firewall, read_build


@pytest.fixture(name="topology")
def _topology() -> Topology:
    """Return the small network with limits and service hours, and with something that must never be."""
    topology = small_topology("proof")
    window = Window((Weekday.MON, Weekday.TUE, Weekday.FRI), time(20), time(6))
    limits = Limits(rate=10, connections=20, rate_per_source=4, connections_per_source=7, windows=(window,))
    flows = {name: replace(flow, limits=limits) for name, flow in topology.flows.items()}
    never = Invariant("apart", Title("apart"), Selector(nodes=("beta",)), Selector(nodes=("gamma",)), PLACE)
    return replace(topology, flows=flows, invariants={never.id: never})


@pytest.fixture(name="build")
def _build(topology: Topology, tmp_path: Path) -> Path:
    compile_topology(topology, tmp_path / "build")
    return tmp_path / "build"


@pytest.fixture(name="network", scope="session")
def _network() -> Topology:
    """Return the miniature network."""
    return check_topology(ROOT / "topology.yaml").topology


@pytest.fixture(name="miniature", scope="session")
def _miniature(network: Topology, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return its build."""
    build = tmp_path_factory.mktemp("miniature") / "build"
    compile_topology(network, build)
    return build


@pytest.fixture(name="case", scope="session", params=list(Family), ids=lambda family: family.name)
def _case(request: pytest.FixtureRequest, network: Topology, miniature: Path) -> Case:
    """Return what kernels make of it in one family."""
    with second_opinion():
        return prepare(network, read_build(miniature, tuple(network.firewalls)), request.param)


@pytest.fixture(name="firewalls", scope="session")
def _firewalls(case: Case) -> Mapping[str, Firewall]:
    """Return what both say of each of its firewalls."""
    return {name: Firewall(case, name) for name in case.topology.firewalls}
