"""Every ordered pair of nodes × every protocol × both families, at every firewall between them.

A denied probe is sent to each firewall of the way, as if those before it had failed: every one must hold by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from conformance.expect import Expectation
from conformance.probe.batch import Probe
from conformance.stages.questions import questions, to_the_firewall
from netpolicy.topology.model import Address, Firewall, Node

STAGE = "matrix"


@dataclass(slots=True)
class Crossings:
    """Which pairs of nodes cross which firewall."""

    by_firewall: dict[str, list[tuple[Node, Node, str]]] = field(default_factory=dict)
    """Source, destination and the interface it comes in by."""
    same_segment: int = 0
    """Ordered pairs with no firewall between them."""
    not_joined: int = 0
    """Ordered pairs that no path joins."""


def crossings(expectation: Expectation) -> Crossings:
    """Return the pairs that cross each firewall."""
    found = Crossings({firewall: [] for firewall in expectation.topology.firewalls})
    nodes = expectation.topology.nodes.values()
    for source in nodes:
        for destination in nodes:
            if source is destination:
                continue
            path = expectation.routing.path(source.interface.segment, destination.interface.segment)
            if path is None:
                found.not_joined += 1
            elif not path:
                found.same_segment += 1
            for hop in path or ():
                found.by_firewall[hop.firewall].append((source, destination, hop.in_interface))
    return found


def matrix(expectation: Expectation, firewall: Firewall, pairs: list[tuple[Node, Node, str]]) -> Iterator[Probe]:
    """Yield the probes between nodes across a firewall, and from nodes to the firewall itself."""
    asked = questions(expectation.topology)
    for source, destination, ingress in pairs:
        for a, b in _families(source.interface.addresses, destination.interface.addresses):
            for each in asked:
                yield Probe(STAGE, source.id, destination.id, each.label, each.shape, ingress, a, b, each.port)
    asked = to_the_firewall(expectation.topology)
    for source in expectation.topology.nodes.values():
        towards = expectation.routing.interface_towards(firewall, source.interface.segment)
        if towards is None:
            continue
        for interface in firewall.interfaces:
            for a, b in _families(source.interface.addresses, interface.addresses):
                for each in asked:
                    yield Probe(STAGE, source.id, firewall.id, each.label, each.shape, towards.name, a, b, each.port)


def _families(sources: tuple[Address, ...], destinations: tuple[Address, ...]) -> Iterator[tuple[Address, Address]]:
    return ((a, b) for a in sources for b in destinations if a.version == b.version)
