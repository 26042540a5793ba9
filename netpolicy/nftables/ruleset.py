"""The main table of one firewall."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

from netpolicy.intent.model import FirewallIntent
from netpolicy.nftables.arrival import NEIGHBOUR_SOLICITATION, arrival_chains, arrival_sets
from netpolicy.nftables.crossings import Crossings, joined_crossings
from netpolicy.nftables.denials import counters, denial, deny_chains
from netpolicy.nftables.names import ADDRESS_TYPES, PREFIXES, TABLE, PairNames, deny_chain, flow_name
from netpolicy.nftables.permits import ACCEPT, PermitEmitter
from netpolicy.nftables.relay import relay_chains, relay_input, relay_output, relay_ports
from netpolicy.nftables.text import block, collection, quoted, remark
from netpolicy.reasons import DenyReason

MAX_PAIRS = 4096
"""Larger rectangles of sources and destinations become two sets and a rule."""

_IP_HEADERS, _TCP_HEADER = {4: 20, 6: 40}, 20
"""In bytes; the former by version."""

_TARGET = re.compile(r"\bgoto (\w+)")

_NEIGHBOUR_ADVERTISEMENT = "icmpv6 type nd-neighbor-advert icmpv6 code 0 ip6 hoplimit 255"
_LISTENER_REPORT = "icmpv6 type mld2-listener-report ip6 daddr ff02::16 ip6 hoplimit 1"
"""Without it a switch that snoops (RFC 4541) withholds the solicitations for the firewall's own addresses."""


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
    crossings = joined_crossings(intent)
    yield [f"counter {counter} {{ }}" for counter in counters(intent)]
    if intent.flows:
        yield [f"counter {flow_name(flow.id)} {{ comment {quoted(flow.id)}; }}" for flow in intent.flows]
    sets = [
        *arrival_sets(intent),
        *_site_sets(intent),
        *_forbidden_map(intent, crossings),
        *permits.collections(),
        *relay_ports(intent),
        *_dispatch_map(crossings, permits, names),
    ]
    chains = list(_chains(intent, crossings, permits, names))
    yield from sets
    yield from deny_chains(intent, set(_TARGET.findall("\n".join(line for part in (*sets, *chains) for line in part))))
    yield from chains


def _chains(
    intent: FirewallIntent, crossings: Crossings, permits: PermitEmitter, names: PairNames
) -> Iterator[list[str]]:
    yield from _connected_sites(intent)
    yield block("chain unmatched", _unmatched(intent))
    if crossings:
        yield _unpermitted(intent)
    yield from permits.flow_chains()
    yield from _crossing_chains(crossings, permits, names)
    yield from arrival_chains(intent)
    if permits.diverted is not None:
        yield from relay_chains(intent, [*permits.original(permits.diverted)])
    if permits.forwards:
        yield block("chain segment_size", _clamp(intent))
    yield block("chain forward", _forward(intent, crossings, permits))
    yield block("chain input", _input(intent, permits))
    yield block("chain output", _output(intent, permits))


def _site_sets(intent: FirewallIntent) -> Iterator[list[str]]:
    """Yield the addresses of sites that are not connected, and the pairs of them within one such site."""
    for family, address_type in ADDRESS_TYPES.items():
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


def _forbidden_map(intent: FirewallIntent, crossings: Crossings) -> Iterator[list[str]]:
    if not crossings:
        return
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
    rules = ["jump unmatched"]
    if intent.forbidden:
        rules.append("meta l4proto . th dport vmap @forbidden")
    rules.append(f"goto {deny_chain(DenyReason.NO_FLOW)}")
    return block("chain unpermitted", rules)


def _dispatch_map(crossings: Crossings, permits: PermitEmitter, names: PairNames) -> Iterator[list[str]]:
    elements = []
    for ingress, egress in crossings:
        open_ = permits.crossing(ingress, egress) or permits.crossing(egress, ingress)
        chain = names.get("cross", ingress, egress) if open_ else "unpermitted"
        elements.append(f"{quoted(ingress)} . {quoted(egress)} : goto {chain}")
    if elements:
        yield collection("map crossings", "ifname . ifname : verdict", elements, interval=False, counter=True)


def _crossing_chains(crossings: Crossings, permits: PermitEmitter, names: PairNames) -> Iterator[list[str]]:
    for ingress, egress in crossings:
        there, back = permits.crossing(ingress, egress), permits.crossing(egress, ingress)
        if there or back:
            rules = [*permits.original(there), *permits.reply(back), "goto unpermitted"]
            yield block(f"chain {names.get('cross', ingress, egress)}", rules)


def _connected_sites(intent: FirewallIntent) -> Iterator[list[str]]:
    """Yield the chain that ends what would cross the border of a site that is not connected (不接続団体)."""
    rules: list[str] = []
    for family, prefix in PREFIXES.items():
        if any(net.version == family for _, prefixes in intent.disconnected for net in prefixes):
            denied = f"goto {deny_chain(DenyReason.NOT_CONNECTED)}"
            rules.append(f"{prefix} saddr . {prefix} daddr @within_site{family} return")
            rules.extend(f"{prefix} {end} @disconnected{family} {denied}" for end in ("saddr", "daddr"))
    if rules:
        yield block("chain connected_sites", rules)


def _unmatched(intent: FirewallIntent) -> Iterator[str]:
    """Yield what is judged of packets that no permit fits, before they are refused for that.

    A permit's ends live where its crossing leads, and no site that is not connected is one of them (see derive), so a
    packet that a permit fits has no need of these look-ups.
    """
    yield remark("Reasons that come before having no permit; what a permit fits goes where its ends live.")
    for family in intent.families:
        prefix = PREFIXES[family]
        yield f"oifname . {prefix} daddr != @behind{family} goto {deny_chain(DenyReason.SPOOFED_DESTINATION)}"
    if any(prefixes for _, prefixes in intent.disconnected):
        yield "jump connected_sites"


def _clamp(intent: FirewallIntent) -> Iterator[str]:
    """Yield what lowers the segment size of a handshake to what the lines on either side carry (RFC 9293, 3.7.1).

    The kernel never raises one.  Since each firewall of a way does so, what is left fits all of its lines.
    """
    sizes = sorted({interface.mtu for interface in intent.interfaces}, reverse=True)
    for mtu in sizes:
        names = [interface.name for interface in intent.interfaces if interface.mtu == mtu]
        listed = "{ " + ", ".join(map(quoted, names)) + " }"
        for family in intent.families:
            header = _IP_HEADERS[family]
            held = f"tcp option maxseg size set {mtu - header - _TCP_HEADER}"
            if mtu == sizes[0]:
                yield f"meta nfproto ipv{family} {held}"
            else:
                yield from (f"meta nfproto ipv{family} {end} {listed} {held}" for end in ("iifname", "oifname"))


def _forward(intent: FirewallIntent, crossings: Crossings, permits: PermitEmitter) -> Iterator[str]:
    yield "type filter hook forward priority 0; policy drop;"
    yield f"ct state invalid goto {deny_chain(DenyReason.INVALID)}"
    if permits.forwards:
        yield "tcp flags & syn != 0 jump segment_size"
    if crossings:
        yield "iifname . oifname vmap @crossings"
    yield "jump unmatched"
    yield from denial(intent, DenyReason.NO_PATH)


def _input(intent: FirewallIntent, permits: PermitEmitter) -> Iterator[str]:
    yield "type filter hook input priority 0; policy drop;"
    yield f'iifname "lo" {ACCEPT}'
    yield f"ct state invalid goto {deny_chain(DenyReason.INVALID)}"
    if permits.diverted is not None:
        yield relay_input()
    if 6 in intent.families:
        yield from _solicitations(intent)
    for interface in intent.interfaces:
        for rule in permits.original(permits.crossing(interface.name, None)):
            yield f"iifname {quoted(interface.name)} {rule}"
    yield from denial(intent, DenyReason.INPUT)


def _solicitations(intent: FirewallIntent) -> Iterator[str]:
    """Yield what lets a segment find the firewall (RFC 4861): the neighbours it has, whatever anybody else asks."""
    if any(neighbour.address.version == 6 for each in intent.interfaces for neighbour in each.neighbours):
        yield f"{NEIGHBOUR_SOLICITATION} iifname . ip6 saddr @neighbours6 {ACCEPT}"
    yield f"{NEIGHBOUR_SOLICITATION} iifname . ip6 saddr @solicitors6 limit rate 100/second burst 200 packets {ACCEPT}"


def _output(intent: FirewallIntent, permits: PermitEmitter) -> Iterator[str]:
    yield "type filter hook output priority 0; policy drop;"
    yield f'oifname "lo" {ACCEPT}'
    if 6 in intent.families:
        # The kernel puts fragments together before this, but for IPv6 ones of odd lengths, which it lets pass.
        yield f"exthdr frag exists goto {deny_chain(DenyReason.FRAGMENT)}"
        yield f"{_NEIGHBOUR_ADVERTISEMENT} {ACCEPT}"
        yield f"{_LISTENER_REPORT} {ACCEPT}"
    for interface in intent.interfaces:
        for rule in permits.reply(permits.crossing(interface.name, None)):
            yield f"oifname {quoted(interface.name)} {rule}"
    if permits.onward is not None:
        yield from relay_output(intent.families, chain(permits.reply(permits.onward), permits.original(permits.onward)))
    yield from denial(intent, DenyReason.OUTPUT)
