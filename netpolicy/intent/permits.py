"""From the ends of flows to permits on every firewall in between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from netpolicy.diagnostics import Diagnostic, Severity
from netpolicy.intent.model import Direction, Permit
from netpolicy.intent.routing import Path, Routing
from netpolicy.topology.ends import End, EndGroup
from netpolicy.topology.model import Address, Firewall, Flow, Node, Topology

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


def derive_permits(
    topology: Topology,
    routing: Routing,
    flows: Mapping[str, Flow],
    groups: Mapping[str, tuple[EndGroup, ...]],
) -> tuple[dict[str, tuple[Permit, ...]], list[Diagnostic]]:
    """Return the permits of each firewall by id, and one finding for each flow some of whose ends no path joins."""
    collected: dict[str, _Collected] = {}
    findings: list[Diagnostic] = []
    for flow in flows.values():
        unjoined: list[str] = []
        for group in groups[flow.id]:
            for source in group.sources:
                for destination in group.destinations:
                    if source.id == destination.id:
                        continue
                    problem = _permit(routing, collected, flow, source, destination)
                    if problem is not None:
                        unjoined.append(problem)
        if unjoined:
            findings.append(_unjoined(flow, unjoined))
    return {firewall: tuple(found.permits(topology)) for firewall, found in collected.items()}, findings


def _permit(
    routing: Routing, collected: dict[str, _Collected], flow: Flow, source: Node, destination: End
) -> str | None:
    """Add what one pair of ends needs on every firewall; return what is wrong if nothing joins them."""
    start = source.interface.segment
    local = None
    if isinstance(destination, Firewall):
        local = routing.interface_towards(destination, start)
        if local is None:
            return f"no path joins '{source.id}' and firewall '{destination.id}'"
        end, addresses = local.segment, local.addresses
    else:
        end, addresses = destination.interface.segment, destination.interface.addresses
    path = routing.path(start, end)
    if path is None:
        return f"no path joins '{source.id}' on segment '{start}' and '{destination.id}' on segment '{end}'"
    pairs = [(a, b) for a in source.interface.addresses for b in addresses if a.version == b.version]
    if not pairs:
        return f"'{source.id}' and '{destination.id}' have no address family in common"
    for a, b in pairs:
        missing = _without_family(routing, path, a.version)
        if missing is not None:
            return f"the path from '{source.id}' to '{destination.id}' has no IPv{a.version} address on {missing}"
        for hop in path:
            crossing = (flow.id, Direction.FORWARD, hop.in_interface, hop.out_interface)
            collected.setdefault(hop.firewall, _Collected()).add(crossing, a, b)
        if local is not None:
            collected.setdefault(destination.id, _Collected()).add((flow.id, Direction.INPUT, local.name, None), a, b)
    return None


def _without_family(routing: Routing, path: Path, version: int) -> str | None:
    """Return the first interface of a path that has no address of a family: nobody could route to it."""
    for hop in path:
        for name in (hop.in_interface, hop.out_interface):
            if all(address.version != version for address in routing.interface(hop.firewall, name).addresses):
                return f"interface '{name}' of firewall '{hop.firewall}'"
    return None


def _unjoined(flow: Flow, problems: list[str]) -> Diagnostic:
    more = f" (and {len(problems) - 1} more pairs of its ends)" if len(problems) > 1 else ""
    return Diagnostic(
        place=flow.place,
        severity=Severity.ERROR,
        message=f"flow '{flow.id}' cannot pass: {problems[0]}{more}",
        expected="ends that firewalls join, in an address family that every firewall between them has",
    )
