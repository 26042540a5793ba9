"""Kernel settings of a firewall, for ``sysctl -p``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from netpolicy.intent.model import FirewallIntent

_IPV4 = {
    "rp_filter": (1, "strict reverse path (RFC 3704), behind the ruleset's own check"),
    "accept_local": (0, None),
    "accept_redirects": (0, "routes come from the topology only"),
    "secure_redirects": (0, None),
    "send_redirects": (0, None),
    "shared_media": (0, None),
    "accept_source_route": (0, "RFC 7126"),
    "proxy_arp": (0, None),
    "arp_filter": (1, "answer ARP only where the address lives"),
    "arp_ignore": (2, None),
    "arp_announce": (2, None),
    "arp_accept": (0, None),
    "forwarding": (0, "forwarding.conf opens it, last"),
}
_IPV6 = {
    "addr_gen_mode": (1, "no address but those of the topology, no link-local one either"),
    "accept_ra": (0, "no router but those of the topology"),
    "autoconf": (0, None),
    "accept_redirects": (0, None),
    "accept_source_route": (-1, "negative: no routing header at all, 0 would leave type 2"),
    "dad_transmits": (0, "addresses come from the topology, which refuses duplicates"),
    "router_solicitations": (0, None),
    "proxy_ndp": (0, None),
    "forwarding": (0, None),
}
_NO_IPV6 = {"disable_ipv6": (1, "no address of IPv6 here: nothing is said either, such as to which groups it listens")}
_GLOBAL = {
    "net/ipv4/ip_forward": (0, "closed until forwarding.conf"),
    "net/ipv4/icmp_echo_ignore_broadcasts": (1, None),
    "net/ipv4/icmp_ignore_bogus_error_responses": (1, None),
    "net/ipv4/tcp_syncookies": (1, None),
    "net/netfilter/nf_conntrack_tcp_loose": (0, "a connection begins with SYN, never in the middle"),
    "net/netfilter/nf_conntrack_tcp_be_liberal": (0, "out-of-window segments are invalid"),
    "net/netfilter/nf_conntrack_checksum": (1, None),
    "net/netfilter/nf_conntrack_tcp_timeout_established": (
        600,
        "seconds without a packet; the default of five days is a place that nobody gives back",
    ),
    "net/netfilter/nf_conntrack_tcp_timeout_syn_sent": (10, "a handshake takes two of its repetitions (1 s, 3 s)"),
    "net/netfilter/nf_conntrack_tcp_timeout_syn_recv": (10, None),
    "net/netfilter/nf_conntrack_tcp_timeout_fin_wait": (30, "one side has closed; until both have, it counts"),
    "net/netfilter/nf_conntrack_tcp_timeout_close_wait": (30, None),
    "net/netfilter/nf_conntrack_tcp_timeout_last_ack": (10, None),
    "net/netfilter/nf_conntrack_tcp_timeout_time_wait": (30, None),
    "net/netfilter/nf_conntrack_tcp_timeout_unacknowledged": (60, "what was sent is not acknowledged"),
    "net/netfilter/nf_conntrack_tcp_timeout_max_retrans": (60, None),
}


def emit_sysctl(intent: FirewallIntent) -> str:
    """Return ``sysctl.conf``: a closed kernel. Interfaces exist when it is applied, but are not up yet."""
    lines = [
        f"# Kernel settings of firewall {intent.id}. Compiled by netpolicy.",
        "# Keys are written with '/', as sysctl(8) allows, since interface names may hold dots.",
        "",
    ]
    lines.extend(_lines("", _GLOBAL))
    for family, settings in (("ipv4", _IPV4), ("ipv6", _IPV6)):
        for scope in ("all", "default", *(interface.name for interface in intent.interfaces)):
            lines.append("")
            lines.extend(_lines(f"net/{family}/conf/{scope}/", settings))
    for interface in intent.interfaces:
        if not any(address.version == 6 for address in interface.addresses):
            lines.append("")
            lines.extend(_lines(f"net/ipv6/conf/{interface.name}/", _NO_IPV6))
    return "\n".join([*lines, ""])


def emit_forwarding(intent: FirewallIntent) -> str:
    """Return ``forwarding.conf``: applied last, when the ruleset stands; for the families that the firewall has."""
    begin = {4: "net/ipv4/ip_forward = 1\n", 6: "net/ipv6/conf/all/forwarding = 1\n"}
    head = f"# Firewall {intent.id} begins to forward. Apply last. Compiled by netpolicy.\n"
    return head + "".join(begin[family] for family in intent.families)


def _lines(prefix: str, settings: Mapping[str, tuple[int, str | None]]) -> Iterator[str]:
    for key, (value, why) in settings.items():
        if why is not None:
            yield f"# {why}"
        yield f"{prefix}{key} = {value}"
