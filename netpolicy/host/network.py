"""Addresses, neighbours and routes of a firewall, for ``ip -batch``."""

from __future__ import annotations

from collections.abc import Iterator

from netpolicy.intent.model import RELAY_MARK, RELAY_TABLE, FirewallIntent, InterfaceIntent
from netpolicy.topology.model import Address


def emit_network(intent: FirewallIntent) -> str:
    """Return ``ip.batch``. Its interfaces exist, under these names and with these MAC addresses.

    Neighbours are permanent: nobody on a segment can take another one's address over. There is no default route.
    """
    lines = [f"# Network of firewall {intent.id}. Compiled by netpolicy; for: ip -batch"]
    for interface in intent.interfaces:
        lines.extend(["", f"# {interface.name}, MAC {interface.mac}, on segment {interface.segment}"])
        lines.extend(_interface(interface))
    for interface in intent.interfaces:
        if interface.routes:
            lines.extend(["", f"# behind {interface.name}"])
            lines.extend(
                f"route replace {route.prefix} via {route.via} dev {interface.name}" for route in interface.routes
            )
    lines.extend(_delivery(intent, "0.0.0.0/0"))
    return "\n".join([*lines, ""])


def emit_network6(intent: FirewallIntent) -> str:
    """Return ``ip6.batch``, for ``ip -6 -batch``: rules of the family that one batch cannot have beside the other."""
    lines = [f"# IPv6 network of firewall {intent.id}. Compiled by netpolicy; for: ip -6 -batch"]
    return "\n".join([*lines, *_delivery(intent, "::/0"), ""])


def _delivery(intent: FirewallIntent, everywhere: str) -> Iterator[str]:
    if intent.relayed:
        yield ""
        yield "# what the ruleset hands to the relay is delivered here, whatever its destination"
        yield f"route replace local {everywhere} dev lo table {RELAY_TABLE}"
        yield f"rule add fwmark {RELAY_MARK:#x} lookup {RELAY_TABLE} priority {RELAY_TABLE}"


def _interface(interface: InterfaceIntent) -> Iterator[str]:
    for address in interface.addresses:
        # dad_transmits is 0, but only nodad makes an address usable before the link is up.
        flags = " nodad" if address.version == 6 else ""
        yield f"address replace {address}/{_prefix_length(interface, address)} dev {interface.name}{flags}"
    yield f"link set dev {interface.name} mtu {interface.mtu} up"
    for neighbour in interface.neighbours:
        yield (f"neighbour replace {neighbour.address} lladdr {neighbour.mac} dev {interface.name} nud permanent")


def _prefix_length(interface: InterfaceIntent, address: Address) -> int:
    return next(prefix.prefixlen for prefix in interface.prefixes if prefix.version == address.version)
