"""The main table of one firewall."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network
from itertools import chain

from netpolicy.intent.model import FirewallIntent
from netpolicy.intent.routing import collapse
from netpolicy.nftables.denials import counters, denial, deny_chains
from netpolicy.nftables.names import TABLE, PairNames, deny_chain, flow_name
from netpolicy.nftables.permits import ACCEPT, PermitEmitter
from netpolicy.nftables.relay import relay_chains, relay_input, relay_output, relay_ports
from netpolicy.nftables.text import block, collection, quoted, remark
from netpolicy.reasons import DenyReason

MAX_PAIRS = 4096
"""Larger rectangles of sources and destinations become two sets and a rule."""

_FAMILIES = (("ip", 4), ("ip6", 6))

_EXTENSION_HEADERS = "hopopt, ipv6-route, esp, ah, ipv6-opts, 135, 139, 140"
"""IANA's IPv6 extension header types, Fragment aside, which is a reason of its own."""

_NEIGHBOUR_SOLICITATION = "icmpv6 type nd-neighbor-solicit icmpv6 code 0 ip6 hoplimit 255"
_NEIGHBOUR_ADVERTISEMENT = "icmpv6 type nd-neighbor-advert icmpv6 code 0 ip6 hoplimit 255"
_LISTENER_REPORT = "icmpv6 type mld2-listener-report ip6 daddr ff02::16 ip6 hoplimit 1"
"""Without it a switch that snoops (RFC 4541) withholds the solicitations for the firewall's own addresses."""
_PATH_MTU = (
    "ct state related icmp type destination-unreachable icmp code frag-needed",
    "ct state related icmpv6 type packet-too-big",
)


def emit_ruleset(intent: FirewallIntent, *, max_pairs: int = MAX_PAIRS) -> str:
    """Return ``nftables.nft``: one transaction that replaces the whole table, or does nothing.

    Times in it are UTC: it must be loaded with ``TZ=UTC`` in nft's environment.
    """
    names = PairNames()
    permits = PermitEmitter(intent, names, max_pairs)
    body: list[str] = []
    for part in _parts(intent, permits, names):
        if body:
            body.append("")
        body.extend(part)
    lines = [
        "#!/usr/sbin/nft -f",
        remark(f"Firewall {intent.id}, {intent.title}, of network {intent.network}; managed by {intent.managed_by}."),
        "# Compiled by netpolicy from the topology: change that, not this. Load with TZ=UTC.",
        "",
        f"table inet {TABLE}",
        f"delete table inet {TABLE}",
        *block(f"table inet {TABLE}", body),
        "",
    ]
    return "\n".join(lines)


def _parts(intent: FirewallIntent, permits: PermitEmitter, names: PairNames) -> Iterator[list[str]]:
    yield [f"counter {counter} {{ }}" for counter in counters(intent)]
    if intent.flows:
        yield [f"counter {flow_name(flow.id)} {{ comment {quoted(flow.id)}; }}" for flow in intent.flows]
    yield from _address_sets(intent)
    yield from _forbidden_map(intent)
    yield from permits.collections()
    yield from relay_ports(intent)
    yield from _dispatch_map(intent, permits, names)
    yield from deny_chains(intent)
    yield _unpermitted(intent)
    yield from permits.flow_chains()
    yield from _crossing_chains(intent, permits, names)
    yield from _connected_sites(intent)
    yield block("chain prerouting", _prerouting(intent))
    if permits.diverted is not None:
        yield from relay_chains([*permits.original(permits.diverted)])
    yield block("chain forward", _forward(intent))
    yield block("chain input", _input(intent, permits))
    yield block("chain output", _output(intent, permits))


def _address_sets(intent: FirewallIntent) -> Iterator[list[str]]:
    """Yield what lives where: the sets that sources, destinations and neighbours are held against."""
    for family, address_type in ((4, "ipv4_addr"), (6, "ipv6_addr")):
        behind = [
            f"{quoted(interface.name)} . {prefix} comment {quoted(interface.segment)}"
            for interface in intent.interfaces
            for prefix in interface.behind
            if prefix.version == family
        ]
        yield collection(f"set behind{family}", f"ifname . {address_type}", behind, interval=True, counter=True)
        known = collapse([prefix for interface in intent.interfaces for prefix in interface.behind])
        elements = [str(prefix) for prefix in known if prefix.version == family]
        yield collection(f"set known{family}", address_type, elements, interval=True, counter=False)
        reserved = _reserved(intent, family)
        yield collection(f"set reserved{family}", address_type, reserved, interval=False, counter=False)
        own = [str(address) for each in intent.interfaces for address in each.addresses if address.version == family]
        yield collection(f"set own{family}", address_type, own, interval=False, counter=False)
        gone = [str(prefix) for _, prefixes in intent.disconnected for prefix in prefixes if prefix.version == family]
        if gone:
            yield collection(f"set disconnected{family}", address_type, gone, interval=True, counter=False)
            within = [
                f"{a} . {b} comment {quoted(site)}"
                for site, prefixes in intent.disconnected
                for a in prefixes
                for b in prefixes
                if a.version == b.version == family
            ]
            key = f"{address_type} . {address_type}"
            yield collection(f"set within_site{family}", key, within, interval=True, counter=False)
    solicitors = [
        f"{quoted(interface.name)} . {prefix}"
        for interface in intent.interfaces
        for prefix in (*(prefix for prefix in interface.prefixes if prefix.version == 6), "fe80::/10")
    ]
    yield collection("set solicitors6", "ifname . ipv6_addr", solicitors, interval=True, counter=False)


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


def _forbidden_map(intent: FirewallIntent) -> Iterator[list[str]]:
    elements = [
        f"{transport} . {port} comment {quoted(protocol.id)} : goto {deny_chain(DenyReason.FORBIDDEN, protocol.id)}"
        for protocol in intent.forbidden
        for transport, ports in (("tcp", protocol.tcp), ("udp", protocol.udp))
        for port in ports
    ]
    if elements:
        ranged = any(port.first != port.last for each in intent.forbidden for port in (*each.tcp, *each.udp))
        key = "inet_proto . inet_service : verdict"
        yield collection("map forbidden", key, elements, interval=ranged, counter=True)


def _unpermitted(intent: FirewallIntent) -> list[str]:
    rules = []
    if intent.forbidden:
        rules.append("meta l4proto . th dport vmap @forbidden")
    rules.append(f"goto {deny_chain(DenyReason.NO_FLOW)}")
    return block("chain unpermitted", rules)


def _dispatch_map(intent: FirewallIntent, permits: PermitEmitter, names: PairNames) -> Iterator[list[str]]:
    elements = []
    for ingress, egress in intent.crossings:
        open_ = permits.crossing(ingress, egress) or permits.crossing(egress, ingress)
        chain = names.get("cross", ingress, egress) if open_ else "unpermitted"
        elements.append(f"{quoted(ingress)} . {quoted(egress)} : goto {chain}")
    yield collection("map crossings", "ifname . ifname : verdict", elements, interval=False, counter=True)


def _crossing_chains(intent: FirewallIntent, permits: PermitEmitter, names: PairNames) -> Iterator[list[str]]:
    for ingress, egress in intent.crossings:
        there, back = permits.crossing(ingress, egress), permits.crossing(egress, ingress)
        if there or back:
            rules = [*permits.original(there), *permits.reply(back), "goto unpermitted"]
            yield block(f"chain {names.get('cross', ingress, egress)}", rules)


def _connected_sites(intent: FirewallIntent) -> Iterator[list[str]]:
    """Yield the chain that ends what would cross the border of a site that is not connected (不接続団体)."""
    rules: list[str] = []
    for prefix, family in _FAMILIES:
        if any(net.version == family for _, prefixes in intent.disconnected for net in prefixes):
            denied = f"goto {deny_chain(DenyReason.NOT_CONNECTED)}"
            rules.append(f"{prefix} saddr . {prefix} daddr @within_site{family} return")
            rules.extend(f"{prefix} {end} @disconnected{family} {denied}" for end in ("saddr", "daddr"))
    if rules:
        yield block("chain connected_sites", rules)


def _prerouting(intent: FirewallIntent) -> Iterator[str]:
    """Yield what is judged before defragmentation, connection tracking and routing can hide anything."""
    spoofed = f"goto {deny_chain(DenyReason.SPOOFED_SOURCE)}"
    yield "type filter hook prerouting priority -450; policy drop;"
    yield 'iifname "lo" accept'
    yield f"ip frag-off & 0x3fff != 0 goto {deny_chain(DenyReason.FRAGMENT)}"
    yield f"exthdr frag exists goto {deny_chain(DenyReason.FRAGMENT)}"
    yield f"ip hdrlength != 5 goto {deny_chain(DenyReason.IP_OPTION)}"
    yield f"ip6 nexthdr {{ {_EXTENSION_HEADERS} }} goto {deny_chain(DenyReason.EXTENSION_HEADER)}"
    yield f"ip ttl <= 1 goto {deny_chain(DenyReason.TTL)}"
    yield f"ip6 hoplimit <= 1 goto {deny_chain(DenyReason.TTL)}"
    for prefix, family in _FAMILIES:
        yield f"{prefix} saddr @own{family} {spoofed}"
        yield f"{prefix} saddr @reserved{family} {spoofed}"
    yield f"{_NEIGHBOUR_SOLICITATION} iifname . ip6 saddr @solicitors6 accept"
    for prefix, family in _FAMILIES:
        yield f"iifname . {prefix} saddr != @behind{family} {spoofed}"
    for prefix, family in _FAMILIES:
        yield f"{prefix} daddr @known{family} {prefix} daddr != @reserved{family} accept"
    yield from denial(intent, DenyReason.NO_ROUTE)


def _forward(intent: FirewallIntent) -> Iterator[str]:
    yield "type filter hook forward priority 0; policy drop;"
    yield f"ct state invalid goto {deny_chain(DenyReason.INVALID)}"
    for prefix, family in _FAMILIES:
        yield f"oifname . {prefix} daddr != @behind{family} goto {deny_chain(DenyReason.SPOOFED_DESTINATION)}"
    if any(prefixes for _, prefixes in intent.disconnected):
        yield "jump connected_sites"
    yield from (f"{error} {ACCEPT}" for error in _PATH_MTU)
    yield "iifname . oifname vmap @crossings"
    yield from denial(intent, DenyReason.NO_PATH)


def _input(intent: FirewallIntent, permits: PermitEmitter) -> Iterator[str]:
    yield "type filter hook input priority 0; policy drop;"
    yield f'iifname "lo" {ACCEPT}'
    yield f"ct state invalid goto {deny_chain(DenyReason.INVALID)}"
    if permits.diverted is not None:
        yield relay_input()
    yield f"{_NEIGHBOUR_SOLICITATION} limit rate 100/second burst 200 packets {ACCEPT}"
    yield from (f"{error} {ACCEPT}" for error in _PATH_MTU)
    for interface in intent.interfaces:
        for rule in permits.original(permits.crossing(interface.name, None)):
            yield f"iifname {quoted(interface.name)} {rule}"
    yield from denial(intent, DenyReason.INPUT)


def _output(intent: FirewallIntent, permits: PermitEmitter) -> Iterator[str]:
    yield "type filter hook output priority 0; policy drop;"
    yield f'oifname "lo" {ACCEPT}'
    yield f"{_NEIGHBOUR_ADVERTISEMENT} {ACCEPT}"
    yield f"{_LISTENER_REPORT} {ACCEPT}"
    yield from (f"{error} {ACCEPT}" for error in _PATH_MTU)
    for interface in intent.interfaces:
        for rule in permits.reply(permits.crossing(interface.name, None)):
            yield f"oifname {quoted(interface.name)} {rule}"
    if permits.onward is not None:
        yield from relay_output(chain(permits.reply(permits.onward), permits.original(permits.onward)))
    yield from denial(intent, DenyReason.OUTPUT)
