"""Between which interfaces of a firewall anything could pass, whatever flows say."""

from __future__ import annotations

from collections.abc import Iterable

from netpolicy.intent.model import FirewallIntent, InterfaceIntent
from netpolicy.topology.model import Prefix

Crossings = tuple[tuple[str, str], ...]
"""Ordered pairs of interfaces."""


def joined_crossings(intent: FirewallIntent) -> Crossings:
    """Return the crossings of a firewall without those where every packet is one of a site that is not connected.

    Such a packet is refused for that before its crossing is asked about, and nothing would be left to ask. It takes
    time by interfaces and sites that are not connected.
    """
    apart = [(site, prefix) for site, prefixes in intent.disconnected for prefix in prefixes]
    free: dict[str, set[int]] = {}
    held: dict[str, set[tuple[str, int]]] = {}
    for interface in intent.interfaces:
        here = [(site, prefix) for site, prefix in apart if _behind(interface, prefix)]
        held[interface.name] = {(site, prefix.version) for site, prefix in here}
        left = {family: _count(interface.behind, family) for family in intent.families}
        for _, prefix in here:
            left[prefix.version] -= prefix.num_addresses
        free[interface.name] = {family for family, count in left.items() if count}
    return tuple(
        (ingress, egress)
        for ingress, egress in intent.crossings
        if free[ingress] & free[egress] or held[ingress] & held[egress]
    )


def _behind(interface: InterfaceIntent, prefix: Prefix) -> bool:
    """Tell whether a segment lives there: what is behind an interface is whole segments."""
    return any(prefix.network_address in each for each in interface.behind)


def _count(prefixes: Iterable[Prefix], family: int) -> int:
    return sum(prefix.num_addresses for prefix in prefixes if prefix.version == family)
