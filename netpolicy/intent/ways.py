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
    start = source.interface.segment
    local = None
    if isinstance(destination, Firewall):
        local = routing.interface_towards(destination, start)
        if local is None:
            raise NoWayError(f"no path joins '{source.id}' and firewall '{destination.id}'")
        end, addresses = local.segment, local.addresses
    else:
        end, addresses = destination.interface.segment, destination.interface.addresses
    path = routing.path(start, end)
    if path is None:
        raise NoWayError(f"no path joins '{source.id}' on segment '{start}' and '{destination.id}' on segment '{end}'")
    pairs = tuple((a, b) for a in source.interface.addresses for b in addresses if a.version == b.version)
    if not pairs:
        raise NoWayError(f"'{source.id}' and '{destination.id}' have no address family in common")
    for a, _ in pairs:
        missing = _without_family(routing, path, a.version)
        if missing is not None:
            raise NoWayError(
                f"the path from '{source.id}' to '{destination.id}' has no IPv{a.version} address on {missing}"
            )
    return Way(path, local, pairs)


def _without_family(routing: Routing, path: Path, version: int) -> str | None:
    """Return the first interface of a path that has no address of a family: nobody could route to it."""
    for hop in path:
        for name in (hop.in_interface, hop.out_interface):
            if all(address.version != version for address in routing.interface(hop.firewall, name).addresses):
                return f"interface '{name}' of firewall '{hop.firewall}'"
    return None
