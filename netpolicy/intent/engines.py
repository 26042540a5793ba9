"""At which interfaces of a firewall an inline engine must stand, so that every permitted connection crosses one."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import combinations

from netpolicy.intent.model import Permit
from netpolicy.topology.model import Firewall, SegmentKind, Topology

_OUTER = {SegmentKind.DEDICATED_LINE: 1, SegmentKind.EXTERNAL: 2}
"""How far outside a segment is, by kind."""


def engine_interfaces(topology: Topology, firewall: Firewall, permits: Iterable[Permit]) -> tuple[str, ...]:
    """Return the fewest interfaces that every permit of `firewall` uses one of, in the firewall's order.

    That is a minimum vertex cover of the interfaces, with an edge for each crossing that some permit takes; a permit
    to the firewall itself uses one interface, which is therefore in.  Among covers of the same size the one with the
    most outer interfaces is taken, since what comes from outside is best seen before anything else sees it; then the
    first in the firewall's order.  Firewalls have few interfaces, so that all covers can be looked at.  A firewall
    that permits nothing has its engine at its outermost interface, to see what is tried.
    """
    names = [interface.name for interface in firewall.interfaces]
    rank = {
        interface.name: _OUTER.get(topology.segments[interface.segment].kind, 0) for interface in firewall.interfaces
    }
    crossed = {frozenset(filter(None, (permit.in_interface, permit.out_interface))) for permit in permits}
    if not crossed:
        return (max(names, key=rank.__getitem__),)
    forced = [name for name in names if frozenset({name}) in crossed]
    others = [name for name in names if name not in forced and any(name in pair for pair in crossed)]
    for size in range(len(others) + 1):
        covers = [
            chosen for more in combinations(others, size) if _covers(chosen := frozenset((*forced, *more)), crossed)
        ]
        if covers:
            best = max(covers, key=lambda cover: sum(rank[name] for name in cover))
            return tuple(name for name in names if name in best)
    raise AssertionError("all interfaces together cover every crossing")


def _covers(chosen: frozenset[str], crossed: Collection[frozenset[str]]) -> bool:
    return all(chosen & pair for pair in crossed)
