"""Which firewalls a packet crosses: the cheapest path between every two segments, and there must be only one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import collapse_addresses

from netpolicy.diagnostics import Diagnostic, InputError, Severity
from netpolicy.intent.graph import Graph, Vertex
from netpolicy.intent.model import Route
from netpolicy.topology.model import Address, Firewall, Interface, Node, Prefix, Topology


@dataclass(frozen=True, slots=True)
class Hop:
    """One firewall of a path, and how the path goes through it."""

    firewall: str
    in_interface: str
    out_interface: str


Path = tuple[Hop, ...]


class Routing:
    """Destination-based routing over the whole network, derived from the firewalls' costs.

    A path costs the sum of its firewalls' costs.  Costs do not depend on the direction and the cheapest path between
    two segments is unique, so answers take the way of the questions backwards: stateful firewalls need that, and strict
    anti-spoofing (RFC 3704) rests on it.  A loop can then not occur: each hop is strictly nearer to the destination.

    Raises:
        InputError: Two segments are joined by several paths of the same least cost.

    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._interfaces: dict[tuple[str, str], Interface] = {}
        self._on_segment: dict[tuple[str, str], Interface] = {}
        neighbours: dict[Vertex, list[Vertex]] = {_segment(segment): [] for segment in topology.segments}
        for firewall in topology.firewalls.values():
            vertex = _firewall(firewall.id)
            neighbours[vertex] = [_segment(interface.segment) for interface in firewall.interfaces]
            for interface in firewall.interfaces:
                self._interfaces[firewall.id, interface.name] = interface
                self._on_segment[firewall.id, interface.segment] = interface
                neighbours[_segment(interface.segment)].append(vertex)
        costs = {_firewall(firewall.id): firewall.cost for firewall in topology.firewalls.values()}
        self._graph = Graph(costs, {vertex: tuple(near) for vertex, near in neighbours.items()})
        ambiguous = list(self._ambiguities())
        if ambiguous:
            raise InputError(ambiguous)

    def crossings(self, firewall: Firewall) -> Iterator[tuple[str, str]]:
        """Yield the pairs of interfaces of a firewall that some path goes through.

        Any such path holds the cheapest path between the two segments beside the firewall, which is the firewall alone.
        """
        for source in firewall.interfaces:
            for destination in firewall.interfaces:
                if source is destination:
                    continue
                path = self.path(source.segment, destination.segment)
                if path is not None and len(path) == 1 and path[0].firewall == firewall.id:
                    yield source.name, destination.name

    def path(self, source: str, destination: str) -> Path | None:
        """Return the firewalls between two segments, () for one and the same, None if nothing joins them."""
        end = _segment(destination)
        here = _segment(source)
        if not self._graph.joined(here, end):
            return None
        hops: list[Hop] = []
        while here != end:
            firewall = self._step(here, end)
            beyond = self._step(firewall, end)
            ingress, egress = self._on_segment[firewall.id, here.id], self._on_segment[firewall.id, beyond.id]
            hops.append(Hop(firewall.id, ingress.name, egress.name))
            here = beyond
        return tuple(hops)

    def joined(self, one: str, other: str) -> bool:
        """Tell whether any path joins two segments."""
        return self._graph.joined(_segment(one), _segment(other))

    def interface(self, firewall: str, name: str) -> Interface:
        """Return an interface of a firewall."""
        return self._interfaces[firewall, name]

    def interface_towards(self, firewall: Firewall, destination: str) -> Interface | None:
        """Return the interface by which `firewall` reaches a segment, None if it cannot.

        A firewall that stands in the middle between two ways to the segment carries no traffic of that segment (every
        segment beside it has a cheaper way), so it has no interface towards it either.
        """
        segment = self._graph.step(_firewall(firewall.id), _segment(destination))
        return None if segment is None else self._on_segment[firewall.id, segment.id]

    def end_of(self, source: Node, destination: Node | Firewall) -> Interface | None:
        """Return the interface that connections from `source` end at: of a firewall, the one that faces the source."""
        if isinstance(destination, Firewall):
            return self.interface_towards(destination, source.interface.segment)
        return destination.interface

    def gateway(self, segment: str, destination: str, family: int) -> Address | None:
        """Return the address, on `segment`, of the first firewall towards `destination`; None if it has none."""
        if segment == destination:
            return None
        firewall = self._graph.step(_segment(segment), _segment(destination))
        if firewall is None:
            return None
        addresses = self._on_segment[firewall.id, segment].addresses
        return next((address for address in addresses if address.version == family), None)

    def node_routes(self, node: Node) -> tuple[Route, ...]:
        """Return a node's routes to every segment that it reaches, the nearest summary of each gateway, IPv4 first."""
        return self.routes(node.interface.segment, tuple(self._topology.segments))

    def routes(self, segment: str, destinations: tuple[str, ...]) -> tuple[Route, ...]:
        """Return routes from a segment to others, by gateway, adjacent prefixes joined, IPv4 first."""
        by_gateway: dict[Address, list[Prefix]] = {}
        for destination in destinations:
            for prefix in self._topology.segments[destination].prefixes:
                via = self.gateway(segment, destination, prefix.version)
                if via is not None:
                    by_gateway.setdefault(via, []).append(prefix)
        found = [Route(prefix, via) for via, prefixes in by_gateway.items() for prefix in collapse(prefixes)]
        return tuple(sorted(found, key=lambda route: prefix_order(route.prefix)))

    def _step(self, here: Vertex, end: Vertex) -> Vertex:
        """Return the next vertex on a path that exists and is unique, as the constructor has made sure."""
        beyond = self._graph.step(here, end)
        if beyond is None:
            raise AssertionError(f"no unique way from {here} to {end}")
        return beyond

    def _ambiguities(self) -> Iterator[Diagnostic]:
        """Yield one finding for each pair of ways that tie, with the first two ends they tie for."""
        seen: set[frozenset[Vertex]] = set()
        for tie in self._graph.ties():
            pair = frozenset((tie.chosen, tie.rival, tie.fork))
            ends = frozenset((tie.source, tie.destination))
            if pair in seen or ends in seen:
                continue
            seen.update((pair, ends))
            firewall = tie.fork if tie.fork.is_firewall else tie.rival
            yield Diagnostic(
                place=self._topology.firewalls[firewall.id].place,
                severity=Severity.ERROR,
                message=(
                    f"two paths of the same cost lead from {_named(tie.source)} to {_named(tie.destination)}: "
                    f"at {_named(tie.fork)} through {_named(tie.chosen)} and through {_named(tie.rival)}"
                ),
                expected="one cheapest path: raise the 'cost' of a firewall on the path that is to stand by",
            )


def prefix_order(prefix: Prefix) -> tuple[int, int, int]:
    """Return a sort key: IPv4 before IPv6, then by address, then wider first."""
    return prefix.version, int(prefix.network_address), prefix.prefixlen


def collapse(prefixes: list[Prefix]) -> tuple[Prefix, ...]:
    """Return the fewest prefixes that cover exactly the same addresses, IPv4 first."""
    v4 = [prefix for prefix in prefixes if prefix.version == 4]
    v6 = [prefix for prefix in prefixes if prefix.version == 6]
    return (*collapse_addresses(v4), *collapse_addresses(v6))


def _segment(name: str) -> Vertex:
    return Vertex(name, is_firewall=False)


def _firewall(name: str) -> Vertex:
    return Vertex(name, is_firewall=True)


def _named(vertex: Vertex) -> str:
    return f"{'firewall' if vertex.is_firewall else 'segment'} '{vertex.id}'"
