"""Who may speak with whom: the ends that flows and invariants select."""

from __future__ import annotations

import math
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from netpolicy.topology.model import Firewall, Flow, Invariant, Node, Selector, SiteRelation, Topology

_SHARES = 4

End = Node | Firewall
"""What a flow begins or ends at."""


@dataclass(frozen=True, slots=True)
class EndGroup:
    """A rectangle: every one of `sources` with every one of `destinations`, but never an end with itself."""

    sources: tuple[Node, ...]
    destinations: tuple[End, ...]
    apart: bool = False
    """Nor two ends at one site."""

    def pairs(self) -> Iterator[tuple[Node, End]]:
        """Yield who may speak with whom, by source."""
        return ((source, end) for source in self.sources for end in self.destinations if self._may(source, end))

    def within(self, sources: AbstractSet[str], destinations: AbstractSet[str]) -> EndGroup:
        """Return the part of it whose ends have these ids."""
        return EndGroup(
            tuple(end for end in self.sources if end.id in sources),
            tuple(end for end in self.destinations if end.id in destinations),
            self.apart,
        )

    def _may(self, source: Node, destination: End) -> bool:
        return source.id != destination.id and not (self.apart and source.site == destination.site)


def select_nodes(topology: Topology, selector: Selector) -> tuple[Node, ...]:
    """Return the nodes that fit everything `selector` gives (its relation aside), in file order."""
    return tuple(node for node in topology.nodes.values() if _fits(topology, selector, node))


def flow_groups(topology: Topology, flow: Flow) -> Iterator[EndGroup]:
    """Yield what `flow` permits as rectangles of ends, pairwise disjoint.

    Ends in sites that are not connected are left out, except where both ends are in the same site.
    """
    sources = select_nodes(topology, flow.sources)
    destinations = _destinations(topology, flow.destinations)
    relation = flow.destinations.relation
    if relation is None:
        yield from _without_disconnected(topology, EndGroup(sources, destinations))
        return
    sources = tuple(node for node in sources if node.site is not None)
    if relation is SiteRelation.OTHER:
        sited = tuple(end for end in destinations if end.site is not None)
        yield from _without_disconnected(topology, EndGroup(sources, sited, apart=True))
        return
    by_site: dict[str | None, list[End]] = {}
    for end in destinations:
        if end.site is not None:
            below = relation is SiteRelation.CHILD
            by_site.setdefault(topology.sites[end.site].parent if below else end.site, []).append(end)
    members: dict[str | None, list[Node]] = {}
    for node in sources:
        members.setdefault(node.site, []).append(node)
    for site, nodes in members.items():
        upwards = relation is SiteRelation.PARENT and site is not None
        related = by_site.get(topology.sites[site].parent if upwards else site, []) if site is not None else []
        yield from _without_disconnected(topology, EndGroup(tuple(nodes), tuple(related)))


@dataclass(frozen=True, slots=True)
class SourceLimits:
    """What each source address of a flow is held to on each firewall; None: nothing but what the flow as a whole is."""

    rate: int | None
    """New connections per second."""
    connections: int | None
    """Concurrent connections."""


def source_limits(topology: Topology, flow: Flow) -> SourceLimits:
    """Return what one source may have of a flow's limits.

    What the author has not said is a quarter of the total, or an equal share where the nodes have fewer than four
    addresses between them: so that one that takes all it may, from both of its addresses, leaves half to the others.
    """
    limits = flow.limits
    nodes = select_nodes(topology, flow.sources)
    among = min(sum(len(node.interface.addresses) for node in nodes), _SHARES) if len(nodes) > 1 else 1

    def share(total: int, said: int | None) -> int | None:
        return said if said is not None or among < 2 else math.ceil(total / among)

    return SourceLimits(
        share(limits.rate, limits.rate_per_source), share(limits.connections, limits.connections_per_source)
    )


def invariant_pairs_permitted(topology: Topology, invariant: Invariant) -> Iterator[tuple[Flow, Node, End]]:
    """Yield each pair that an effective flow permits although `invariant` says never."""
    sources = {node.id for node in select_nodes(topology, invariant.sources)}
    destinations = {node.id for node in _destinations(topology, invariant.destinations)}
    for flow in topology.effective_flows():
        for group in flow_groups(topology, flow):
            for source, destination in group.within(sources, destinations).pairs():
                yield flow, source, destination


def _destinations(topology: Topology, selector: Selector) -> tuple[End, ...]:
    if selector.managed_by is None:
        return select_nodes(topology, selector)
    return tuple(
        firewall
        for firewall in topology.firewalls.values()
        if firewall.managed_by == selector.managed_by
        and (not selector.sites or firewall.site in selector.sites)
        and (not selector.nodes or firewall.id in selector.nodes)
    )


def _fits(topology: Topology, selector: Selector, node: Node) -> bool:
    segment = topology.segments[node.interface.segment]
    return (
        (not selector.nodes or node.id in selector.nodes)
        and (not selector.roles or node.role in selector.roles)
        and (not selector.tiers or segment.tier in selector.tiers)
        and (not selector.sites or node.site in selector.sites)
        and (not selector.segments or segment.id in selector.segments)
    )


def _without_disconnected(topology: Topology, group: EndGroup) -> Iterator[EndGroup]:
    """Yield what is left of a group when nothing crosses the border of a site that is not connected."""
    disconnected = {site.id for site in topology.sites.values() if not site.connected}
    if not disconnected:
        if group.sources and group.destinations:
            yield group
        return
    inside = [end.site for end in group.sources if end.site in disconnected]
    sources = tuple(end for end in group.sources if end.site not in disconnected)
    destinations = tuple(end for end in group.destinations if end.site not in disconnected)
    if sources and destinations:
        yield EndGroup(sources, destinations, group.apart)
    for site in () if group.apart else dict.fromkeys(inside):
        beside = tuple(end for end in group.destinations if end.site == site)
        if beside:
            yield EndGroup(tuple(end for end in group.sources if end.site == site), beside)
