"""From the ends of flows to permits on every firewall in between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from netpolicy.intent.model import Direction, Permit
from netpolicy.intent.routing import Routing
from netpolicy.intent.ways import find_way
from netpolicy.topology.ends import End, flow_groups
from netpolicy.topology.model import Address, Flow, Node, Topology

_Crossing = tuple[str, Direction, str, str | None]
"""Flow, direction, interface in, interface out."""


@dataclass(slots=True)
class _Collected:
    """What one firewall must permit, before it is gathered into rectangles."""

    sources: dict[_Crossing, dict[Address, dict[Address, None]]] = field(default_factory=dict)
    """For each crossing and destination, the sources as an ordered set."""

    def add(self, crossing: _Crossing, source: Address, destination: Address) -> None:
        self.sources.setdefault(crossing, {}).setdefault(destination, {})[source] = None

    def permits(self, topology: Topology) -> Iterator[Permit]:
        """Yield rectangles: the destinations of a crossing that share their sources stand together."""
        for (flow, direction, in_interface, out_interface), by_destination in self.sources.items():
            rectangles: dict[tuple[Address, ...], list[Address]] = {}
            for destination, sources in by_destination.items():
                key = tuple(sorted(sources, key=lambda address: (address.version, int(address))))
                rectangles.setdefault(key, []).append(destination)
            service = topology.services[topology.flows[flow].service]
            for sources_, destinations in rectangles.items():
                yield Permit(
                    flow=flow,
                    direction=direction,
                    in_interface=in_interface,
                    out_interface=out_interface,
                    sources=sources_,
                    destinations=tuple(sorted(destinations, key=int)),
                    transport=service.transport,
                    ports=service.ports,
                )


def derive_permits(topology: Topology, routing: Routing) -> dict[str, tuple[Permit, ...]]:
    """Return the permits of each firewall by id; :func:`netpolicy.intent.verify.verify` must have found nothing."""
    collected: dict[str, _Collected] = {}
    for flow in topology.effective_flows():
        for group in flow_groups(topology, flow):
            for source, destination in group.pairs():
                _permit(routing, collected, flow, source, destination)
    return {firewall: tuple(found.permits(topology)) for firewall, found in collected.items()}


def _permit(routing: Routing, collected: dict[str, _Collected], flow: Flow, source: Node, destination: End) -> None:
    """Add what one pair of ends needs on every firewall of its way."""
    way = find_way(routing, source, destination)
    for a, b in way.addresses:
        for hop in way.path:
            crossing: _Crossing = (flow.id, Direction.FORWARD, hop.in_interface, hop.out_interface)
            collected.setdefault(hop.firewall, _Collected()).add(crossing, a, b)
        if way.local is not None:
            crossing = (flow.id, Direction.INPUT, way.local.name, None)
            collected.setdefault(destination.id, _Collected()).add(crossing, a, b)
