"""Which firewalls a packet crosses: the cheapest path between every two segments, and there must be only one."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import collapse_addresses

from netpolicy.diagnostics import Diagnostic, InputError, Severity
from netpolicy.intent.model import Route
from netpolicy.topology.model import Address, Firewall, Interface, Node, Prefix, Topology


@dataclass(frozen=True, slots=True)
class Hop:
    """One firewall of a path, and how the path goes through it."""

    firewall: str
    in_interface: str
    out_interface: str


Path = tuple[Hop, ...]


@dataclass(slots=True)
class _Tree:
    """The cheapest ways from everywhere to one segment."""

    distance: dict[str, int]
    next: dict[str, Hop] = field(default_factory=dict)
    """For each other segment that reaches it, the first firewall on the way."""
    rival: dict[str, Hop] = field(default_factory=dict)
    """Another first firewall (or another way through the same one) at the same cost."""


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
        self._attached: dict[str, list[tuple[Firewall, Interface]]] = {segment: [] for segment in topology.segments}
        for firewall in topology.firewalls.values():
            for interface in firewall.interfaces:
                self._attached[interface.segment].append((firewall, interface))
        self._interfaces = {
            (firewall.id, interface.name): interface
            for firewall in topology.firewalls.values()
            for interface in firewall.interfaces
        }
        self._trees = {segment: self._grow(segment) for segment in topology.segments}
        ambiguous = list(self._ambiguities())
        if ambiguous:
            raise InputError(ambiguous)

    def path(self, source: str, destination: str) -> Path | None:
        """Return the firewalls between two segments, () for one and the same, None if nothing joins them."""
        tree = self._trees[destination]
        if source not in tree.distance:
            return None
        hops: list[Hop] = []
        while source != destination:
            hop = tree.next[source]
            hops.append(hop)
            source = self._interfaces[hop.firewall, hop.out_interface].segment
        return tuple(hops)

    def interface(self, firewall: str, name: str) -> Interface:
        """Return an interface of a firewall."""
        return self._interfaces[firewall, name]

    def interface_towards(self, firewall: Firewall, destination: str) -> Interface | None:
        """Return the interface by which `firewall` reaches a segment, None if it cannot.

        A firewall that stands in the middle between two ways to the segment carries no traffic of that segment (every
        segment beside it has a cheaper way), so it has no interface towards it either.
        """
        distance = self._trees[destination].distance
        reached = [interface for interface in firewall.interfaces if interface.segment in distance]
        if not reached:
            return None
        nearest = min(distance[interface.segment] for interface in reached)
        best = [interface for interface in reached if distance[interface.segment] == nearest]
        return best[0] if len(best) == 1 else None

    def gateway(self, segment: str, destination: str, family: int) -> Address | None:
        """Return the address, on `segment`, of the first firewall towards `destination`; None if it has none."""
        hop = self._trees[destination].next.get(segment)
        if hop is None:
            return None
        addresses = self._interfaces[hop.firewall, hop.in_interface].addresses
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

    def _grow(self, destination: str) -> _Tree:
        tree = _Tree({destination: 0})
        queue = [(0, destination)]
        done: set[str] = set()
        while queue:
            reached, segment = heapq.heappop(queue)
            if segment in done:
                continue
            done.add(segment)
            for firewall, out in self._attached[segment]:
                cost = reached + firewall.cost
                for interface in firewall.interfaces:
                    if interface.segment == segment:
                        continue
                    hop = Hop(firewall.id, interface.name, out.name)
                    known = tree.distance.get(interface.segment)
                    if known is None or cost < known:
                        tree.distance[interface.segment] = cost
                        tree.next[interface.segment] = hop
                        tree.rival.pop(interface.segment, None)
                        heapq.heappush(queue, (cost, interface.segment))
                    elif cost == known:
                        tree.rival.setdefault(interface.segment, hop)
        return tree

    def _ambiguities(self) -> Iterator[Diagnostic]:
        """Yield one finding for each pair of firewalls that tie, with the first two segments they tie for."""
        seen: set[frozenset[str]] = set()
        for destination, tree in self._trees.items():
            for source, rival in tree.rival.items():
                chosen = tree.next[source]
                pair = frozenset((chosen.firewall, rival.firewall))
                if pair in seen:
                    continue
                seen.add(pair)
                yield Diagnostic(
                    place=self._topology.firewalls[rival.firewall].place,
                    severity=Severity.ERROR,
                    message=(
                        f"two paths of the same cost {tree.distance[source]} lead from segment '{source}' to "
                        f"'{destination}': {_way(chosen)} and {_way(rival)}"
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


def _way(hop: Hop) -> str:
    return f"through '{hop.firewall}' ({hop.in_interface} to {hop.out_interface})"
