"""Where engines stand: every permitted crossing uses one of their interfaces, and with one less some would not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import pytest

from conformance.expect import Expectation
from netpolicy.intent.derive import derive_intents
from netpolicy.intent.engines import engine_interfaces
from netpolicy.intent.routing import Routing
from netpolicy.topology.load import load_topology
from netpolicy.topology.model import SegmentKind, Topology

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def topology() -> Topology:
    """Return the network of the repository."""
    return load_topology(ROOT / "topology.yaml").topology


def _crossed(topology: Topology) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield the interfaces that each permitted pair uses at each firewall, by the topology and its routing alone."""
    expectation = Expectation(topology, Routing(topology), datetime.now(UTC))
    for firewall, permits in expectation.permits.items():
        for permitted in permits:
            yield firewall, frozenset(filter(None, permitted.ends[:2]))


def test_every_permitted_crossing_uses_an_engine(topology: Topology) -> None:
    """No permitted connection can pass a firewall without its engine."""
    engines = {intent.id: set(intent.engines) for intent in derive_intents(topology).values()}
    crossed = list(_crossed(topology))
    assert len(crossed) > 100
    assert [(firewall, pair) for firewall, pair in crossed if not pair & engines[firewall]] == []


def test_no_smaller_choice_would_do(topology: Topology) -> None:
    """With fewer interfaces, some permitted connection would pass unseen."""
    crossed: dict[str, set[frozenset[str]]] = {}
    for firewall, pair in _crossed(topology):
        crossed.setdefault(firewall, set()).add(pair)
    for intent in derive_intents(topology).values():
        names = [interface.name for interface in intent.interfaces]
        for fewer in combinations(names, len(intent.engines) - 1):
            assert any(not pair & set(fewer) for pair in crossed.get(intent.id, {frozenset(names)}))


def test_a_firewall_that_permits_nothing_watches_its_outermost_interface(topology: Topology) -> None:
    """The Internet, then dedicated lines, then the first interface."""
    firewall = topology.firewalls["tachikawa-internet-fw"]
    assert topology.segments["internet"].kind is SegmentKind.EXTERNAL
    assert engine_interfaces(topology, firewall, ()) == ("internet",)
    assert engine_interfaces(topology, topology.firewalls["kunitachi-line-fw"], ()) == ("line",)
