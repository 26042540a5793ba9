"""Who may speak with whom: the ends that flows and invariants select."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from netpolicy.topology.model import Firewall, Flow, Invariant, Node, Selector, SiteRelation, Topology

End = Node | Firewall
"""What a flow begins or ends at."""


@dataclass(frozen=True, slots=True)
class EndGroup:
    """A rectangle: every one of `sources` with every one of `destinations`, but never an end with itself."""

    sources: tuple[Node, ...]
    destinations: tuple[End, ...]


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
        yield from _without_disconnected(topology, sources, destinations)
        return
    by_site: dict[str | None, list[Node]] = {}
    for node in sources:
        by_site.setdefault(node.site, []).append(node)
    for site, members in by_site.items():
        if site is None:
            continue
        related = tuple(end for end in destinations if _related(topology, relation, site, end.site))
        yield from _without_disconnected(topology, tuple(members), related)


def invariant_pairs_permitted(topology: Topology, invariant: Invariant) -> Iterator[tuple[Flow, Node, End]]:
    """Yield each pair that an effective flow permits although `invariant` says never."""
    sources = {node.id for node in select_nodes(topology, invariant.sources)}
    destinations = {node.id for node in _destinations(topology, invariant.destinations)}
    for flow in topology.effective_flows():
        for group in flow_groups(topology, flow):
            for source in group.sources:
                if source.id not in sources:
                    continue
                for destination in group.destinations:
                    if destination.id in destinations and destination.id != source.id:
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


def _related(topology: Topology, relation: SiteRelation, source: str, destination: str | None) -> bool:
    if destination is None:
        return False
    match relation:
        case SiteRelation.PARENT:
            return topology.sites[source].parent == destination
        case SiteRelation.CHILD:
            return topology.sites[destination].parent == source
        case SiteRelation.SAME:
            return source == destination
        case SiteRelation.OTHER:
            return source != destination


def _without_disconnected(
    topology: Topology, sources: tuple[Node, ...], destinations: tuple[End, ...]
) -> Iterator[EndGroup]:
    def connected(end: End) -> bool:
        return end.site is None or topology.sites[end.site].connected

    open_sources = tuple(end for end in sources if connected(end))
    open_destinations = tuple(end for end in destinations if connected(end))
    if open_sources and open_destinations:
        yield EndGroup(open_sources, open_destinations)
    for site in topology.sites.values():
        if site.connected:
            continue
        inside = tuple(end for end in sources if end.site == site.id)
        beside = tuple(end for end in destinations if end.site == site.id)
        if inside and beside:
            yield EndGroup(inside, beside)
