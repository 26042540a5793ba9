"""What is judged of a packet as it arrives: its shape, where it comes from, whether it can go anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network

from netpolicy.intent.model import Direction, FirewallIntent, Permit
from netpolicy.intent.routing import collapse
from netpolicy.nftables.denials import denial
from netpolicy.nftables.names import ADDRESS_TYPES, PREFIXES, deny_chain
from netpolicy.nftables.text import block, collection, quoted, remark
from netpolicy.reasons import DenyReason
from netpolicy.topology.link_local import link_local
from netpolicy.topology.model import Address

NEIGHBOUR_SOLICITATION = "icmpv6 type nd-neighbor-solicit icmpv6 code 0 ip6 hoplimit 255"

_EXTENSION_HEADERS = "hopopt, ipv6-route, ipv6-frag, esp, ah, ipv6-opts, 135, 139, 140"
"""IANA's IPv6 extension header types."""

_ERRORS = {
    4: "icmp type { destination-unreachable, source-quench, redirect, time-exceeded, parameter-problem }",
    6: "icmpv6 type { 0-127, nd-redirect }",
}
"""Whatever connection tracking could take for an error about a connection."""
_IP_HEADER = {4: 20, 6: 40}
_DATA_OFFSETS = range(5, 16)
"""Of TCP, in words of four bytes (RFC 9293)."""
_FAST_OPEN = ("fastopen", "254")
"""Its kind, and the one that experiments share (RFC 7413, RFC 6994)."""

# Of an IPv6 packet "not TCP" is asked first, because it spares most of them a look-up.
_SHAPE = {
    4: (
        f"ip frag-off & 0x3fff != 0 goto {deny_chain(DenyReason.FRAGMENT)}",
        f"ip hdrlength != 5 goto {deny_chain(DenyReason.IP_OPTION)}",
        f"ip ttl <= 1 goto {deny_chain(DenyReason.TTL)}",
    ),
    6: (
        f"ip6 nexthdr != tcp ip6 nexthdr {{ {_EXTENSION_HEADERS} }} goto extended6",
        f"ip6 hoplimit <= 1 goto {deny_chain(DenyReason.TTL)}",
    ),
}


def _of_transport(family: int) -> tuple[str, ...]:
    """Return what is judged of the transport header's shape: nothing there could say more than a connection may."""
    return (
        f"{_ERRORS[family]} goto {deny_chain(DenyReason.ICMP_ERROR)}",
        f"tcp flags & (syn | rst) != 0 jump bare{family}",
    )


def _bare(family: int) -> Iterator[str]:
    """Yield what lets SYN and RST go on if they end with their header: nft 1.0.6 cannot compute one from the other."""
    refused = f"goto {deny_chain(DenyReason.SYN_DATA)}"
    yield from (f"tcp option {option} exists {refused}" for option in _FAST_OPEN)
    for words in _DATA_OFFSETS:
        yield f"tcp doff {words} meta length {_IP_HEADER[family] + 4 * words} return"
    yield refused


def arrival_sets(intent: FirewallIntent) -> Iterator[list[str]]:
    """Yield what lives where: the sets that sources, destinations and neighbours are held against."""
    for family in intent.families:
        address_type = ADDRESS_TYPES[family]
        behind = [
            f"{quoted(interface.name)} . {prefix} comment {quoted(interface.segment)}"
            for interface in intent.interfaces
            for prefix in interface.behind
            if prefix.version == family
        ]
        yield collection(f"set behind{family}", f"ifname . {address_type}", behind, interval=True, counter=False)
        known = collapse([prefix for interface in intent.interfaces for prefix in interface.behind])
        elements = [str(prefix) for prefix in known if prefix.version == family]
        yield collection(f"set known{family}", address_type, elements, interval=True, counter=False)
        reserved = _reserved(intent, family)
        yield collection(f"set reserved{family}", address_type, reserved, interval=False, counter=False)
        own = [str(address) for each in intent.interfaces for address in each.addresses if address.version == family]
        nowhere = list(dict.fromkeys((*own, *reserved)))
        yield collection(f"set no_source{family}", address_type, nowhere, interval=False, counter=False)
        senders, receivers = ends(intent.permits, family)
        if senders:
            elements = [f"{quoted(interface)} . {address}" for interface, address in senders]
            key = f"ifname . {address_type}"
            yield collection(f"set senders{family}", key, elements, interval=False, counter=False)
            elements = [str(address) for address in receivers]
            yield collection(f"set receivers{family}", address_type, elements, interval=False, counter=False)
    if 6 not in intent.families:
        return
    solicitors = [
        f"{quoted(interface.name)} . {prefix}"
        for interface in intent.interfaces
        for prefix in (*(prefix for prefix in interface.prefixes if prefix.version == 6), "fe80::/10")
    ]
    yield collection("set solicitors6", "ifname . ipv6_addr", solicitors, interval=True, counter=False)
    neighbours = [
        f"{quoted(interface.name)} . {address} comment {quoted(neighbour.id)}"
        for interface in intent.interfaces
        for neighbour in interface.neighbours
        if neighbour.address.version == 6
        for address in (neighbour.address, link_local(neighbour.mac))
    ]
    if neighbours:
        yield collection("set neighbours6", "ifname . ipv6_addr", neighbours, interval=False, counter=False)


def ends(permits: Iterable[Permit], family: int) -> tuple[list[tuple[str, Address]], list[Address]]:
    """Return who sends permitted packets, by the interface that they come in by, and who they are for."""
    senders: dict[tuple[str, Address], None] = {}
    receivers: dict[Address, None] = {}
    for permit in permits:
        if permit.family != family:
            continue
        senders.update(dict.fromkeys((permit.in_interface, source) for source in permit.sources))
        receivers.update(dict.fromkeys(permit.destinations))
        if permit.direction is Direction.FORWARD and permit.out_interface is not None:  # the answers
            senders.update(dict.fromkeys((permit.out_interface, end) for end in permit.destinations))
            receivers.update(dict.fromkeys(permit.sources))
    return sorted(senders, key=lambda each: (each[0], int(each[1]))), sorted(receivers, key=int)


def _reserved(intent: FirewallIntent, family: int) -> list[str]:
    """Return the addresses of the connected segments that are nobody's.

    The kernel takes them for itself: IPv4 directed broadcast, IPv6 subnet-router anycast (RFC 4291, 2.6.1).
    """
    return [
        str(prefix.broadcast_address if isinstance(prefix, IPv4Network) else prefix.network_address)
        for interface in intent.interfaces
        for prefix in interface.prefixes
        if prefix.version == family and prefix.num_addresses > 2
    ]


def arrival_chains(intent: FirewallIntent) -> Iterator[list[str]]:
    """Yield what is judged before defragmentation, connection tracking and routing can hide anything."""
    fragment, header = deny_chain(DenyReason.FRAGMENT), deny_chain(DenyReason.EXTENSION_HEADER)
    if 6 in intent.families:
        yield block("chain extended6", [f"exthdr frag exists goto {fragment}", f"goto {header}"])
    for family in intent.families:
        yield block(f"chain bare{family}", _bare(family))
        yield block(f"chain prerouting{family}", _of_family(intent, family))
    yield block(
        "chain prerouting",
        (
            "type filter hook prerouting priority -450; policy drop;",
            'iif "lo" accept',
            *(f"meta nfproto ipv{family} jump prerouting{family}" for family in intent.families),
            *denial(intent, DenyReason.NO_ROUTE),
        ),
    )


def _of_family(intent: FirewallIntent, family: int) -> Iterator[str]:
    prefix = PREFIXES[family]
    spoofed = f"goto {deny_chain(DenyReason.SPOOFED_SOURCE)}"
    yield from _SHAPE[family]
    yield from _of_transport(family)
    if any(permit.family == family for permit in intent.permits):
        yield remark("The ends of flows: the rules below accept them too, with slower look-ups.")
        yield f'iifname . {prefix} saddr @senders{family} {prefix} daddr @receivers{family} accept comment "shortcut"'
    yield f"{prefix} saddr @no_source{family} {spoofed}"
    if family == 6:
        yield f"{NEIGHBOUR_SOLICITATION} iifname . ip6 saddr @solicitors6 accept"
    yield f"iifname . {prefix} saddr != @behind{family} {spoofed}"
    yield f"{prefix} daddr @known{family} {prefix} daddr != @reserved{family} accept"
