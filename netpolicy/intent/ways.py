"""The way of one pair of ends: its firewalls, and the addresses that can use it."""

from __future__ import annotations

from dataclasses import dataclass

from netpolicy.intent.routing import Path, Routing
from netpolicy.topology.ends import End
from netpolicy.topology.model import Address, Firewall, Interface, Node


@dataclass(frozen=True, slots=True)
class Way:
    """How one end reaches another."""

    path: Path
    local: Interface | None
    """Where it ends, if that is on a firewall itself."""
    addresses: tuple[tuple[Address, Address], ...]
    """Of the source and the destination, of each family that both speak."""


class NoWayError(Exception):
    """One end cannot reach the other; says why."""


def find_way(routing: Routing, source: Node, destination: End) -> Way:
    """Return the way from one end to another.

    Raises:
        NoWayError: No path joins them, they have no address family in common, or the path has not.

    """
    start, end = source.interface, routing.end_of(source, destination)
    if end is None:
        raise NoWayError(f"no path joins '{source.id}' and firewall '{destination.id}'")
    path = routing.path(start.segment, end.segment)
    if path is None:
        ends = f"'{source.id}' on segment '{start.segment}' and '{destination.id}' on segment '{end.segment}'"
        raise NoWayError(f"no path joins {ends}")
    pairs = tuple((a, b) for a in start.addresses for b in end.addresses if a.version == b.version)
    if not pairs:
        raise NoWayError(f"'{source.id}' and '{destination.id}' have no address family in common")
    for a, _ in pairs:
        missing = _without_family(routing, path, a.version)
        if missing is not None:
            raise NoWayError(
                f"the path from '{source.id}' to '{destination.id}' has no IPv{a.version} address on {missing}"
            )
    return Way(path, end if isinstance(destination, Firewall) else None, pairs)


def _without_family(routing: Routing, path: Path, version: int) -> str | None:
    """Return the first interface of a path that has no address of a family: nobody could route to it."""
    for hop in path:
        for name in (hop.in_interface, hop.out_interface):
            if all(address.version != version for address in routing.interface(hop.firewall, name).addresses):
                return f"interface '{name}' of firewall '{hop.firewall}'"
    return None
