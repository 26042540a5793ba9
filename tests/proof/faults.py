"""Builds edited by hand, for which a theorem does not hold any more; and some for which it still does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from netpolicy.proof.fields import Family


@dataclass(frozen=True, slots=True)
class Edit:
    """A text in a firewall's ruleset that becomes another."""

    name: str
    old: str
    new: str
    file: str = "nftables.nft"
    holds: bool = False
    """Whether it makes no difference."""
    opens: bool = False
    """Whether other connections can begin."""
    family: Family = Family.IPV4
    """Of the packets for which it makes one."""

    def apply(self, build: Path, firewall: str) -> None:
        """Edit a build."""
        path = build / firewall / self.file
        text = path.read_text(encoding="utf-8")
        assert self.old in text, self.name
        path.write_text(text.replace(self.old, self.new, 1), encoding="utf-8")


_MAP = "\t\ttype ipv4_addr . ipv4_addr . inet_proto . inet_service : verdict\n\t\tcounter\n\t\telements = {\n"
_OWN_USE = "10.13.211.10 . 10.13.210.10 . tcp . 17020"
_NOTICE = (
    '\t\t\t10.13.1.74 . 10.13.210.10 . tcp . 17001 comment "identity-record-notice" : '
    "goto flow_identity_record_notice,\n"
)
_FLAGS = "\t\ttcp flags & (fin | syn | rst | ack) != syn goto deny_not_syn\n"
_OWN_FLOW = "owner: 都道府県 市町村課; assurance: inspect\n"
_EVERYTHING_ELSE = "\t\tcounter name deny_no_route drop\n"
_ACCEPT = "meta mark set 0x4e000000 accept"
_ERRORS = (
    "\t\ticmp type { destination-unreachable, source-quench, redirect, time-exceeded, parameter-problem } "
    "goto deny_icmp_error\n"
)
_ERRORS6 = "\t\ticmpv6 type { 0-127, nd-redirect } goto deny_icmp_error\n"
_RELATED = f"\t\tct state related {_ACCEPT}\n"
_FORWARD, _INPUT, _OUTPUT = (
    f"\t\ttype filter hook {hook} priority 0; policy drop;\n" for hook in ("forward", "input", "output")
)
_ENDS = "\t\ttcp flags & (syn | rst) != 0 jump bare{}\n"
_PREROUTING = "type filter hook prerouting priority -450; policy "

EDITS: Sequence[Edit] = (
    Edit(
        "element widened",
        f"{_MAP}\t\t\t{_OWN_USE}",
        f"{_MAP.replace('counter', 'flags interval')}\t\t\t{_OWN_USE}-17021",
        opens=True,
    ),
    Edit("other source", _OWN_USE, _OWN_USE.replace("211.10", "211.11"), opens=True),
    Edit("other protocol", _OWN_USE, _OWN_USE.replace("tcp", "udp"), opens=True),
    Edit("element deleted", _NOTICE, "", opens=True),
    Edit("anti-spoofing deleted", "\t\tiifname . ip saddr != @behind4 goto deny_spoofed_source\n", "", opens=True),
    Edit("SYN not demanded", _FLAGS, ""),
    Edit("policy flipped", f"{_PREROUTING}drop", f"{_PREROUTING}accept", holds=True),
    Edit("final drop deleted", _EVERYTHING_ELSE, "", holds=True),
    Edit("final drop is accept", _EVERYTHING_ELSE, "\t\taccept\n"),
    Edit("negation lost", "ip daddr != @reserved4 accept", "ip daddr @reserved4 accept"),
    Edit("one second more", '"00:00:00"-"08:14:59" goto open_', '"00:00:00"-"08:15:00" goto open_'),
    Edit("established limited", _OWN_FLOW, f"{_OWN_FLOW}\t\tlimit rate over 1/second goto deny_rate\n"),
    Edit("connections without zone", "socket transparent 1 ct zone set 1", "socket transparent 1 ct zone set 2"),
    Edit("guard open", "policy drop", "policy accept", file="guard.nft", holds=True),
    Edit("mark forgotten", f"ct state established {_ACCEPT}", "ct state established accept"),
    Edit("ICMP errors arrive", _ERRORS, "", holds=True),
    Edit("related is passed on", _FORWARD, f"{_FORWARD}{_RELATED}"),
    Edit("ICMP errors are sent", _OUTPUT, f"{_OUTPUT}\t\ticmp type destination-unreachable {_ACCEPT}\n"),
    Edit(
        "ICMPv6 errors are sent",
        _OUTPUT,
        f"{_OUTPUT}\t\ticmpv6 type packet-too-big {_ACCEPT}\n",
        family=Family.IPV6,
    ),
    Edit("SYN with data", _ENDS.format(4), ""),
    Edit("IPv6 SYN with data", _ENDS.format(6), "", family=Family.IPV6),
    Edit("one byte after SYN", "tcp doff 10 meta length 60 return", "tcp doff 10 meta length { 60, 61 } return"),
    Edit("Fast Open", "\t\ttcp option fastopen exists goto deny_syn_data\n", ""),
    Edit("Fast Open by experiment", "\t\ttcp option 254 exists goto deny_syn_data\n", ""),
)

_INVALID = "\t\tct state invalid goto deny_invalid\n"
_KNOWN = "\t\tip daddr @known4 ip daddr != @reserved4 accept\n"
_GUARD = "\t\tcounter name guard_forward drop\n"
_LOOPED = '\t\tiif "lo" accept\n'
_WITHIN = "\tset within_site4 {\n\t\ttype ipv4_addr . ipv4_addr\n\t\tflags interval\n\t\telements = {\n"
_SHORTCUT = "\t\tiifname . ip saddr @senders4 "
_NAMESAKE = "\tset known4 {\n\t\ttype ipv4_addr\n\t\telements = { 10.13.1.74 }\n\t}\n"

DEAD: Sequence[tuple[str, Edit]] = (
    ("tachikawa-internet-fw", Edit("hidden", _INVALID, f"{_INVALID}\t\tct state invalid meta mark 5 drop\n")),
    ("tachikawa-internet-fw", Edit("needless", _KNOWN, f"\t\tip daddr 10.13.1.74 accept\n{_KNOWN}")),
    (
        "tachikawa-internet-fw",
        Edit("needless mark", _GUARD, f"\t\ttcp dport 22 meta mark set 1 drop\n{_GUARD}", file="guard.nft"),
    ),
    ("tachikawa-internet-fw", Edit("from nowhere", _WITHIN, f"{_WITHIN}\t\t\t10.99.0.1 . 10.99.0.2,\n")),
    (
        "tachikawa-internet-fw",
        Edit("namesake", "\tchain input {\n", f"{_NAMESAKE}\tchain input {{\n", file="guard.nft"),
    ),
    ("tachikawa-internet-fw", Edit("needed", _LOOPED, f"{_LOOPED}\t\tip saddr 10.13.1.74 drop\n", holds=True)),
    ("shinagawa-municipal-fw", Edit("shortcut astray", _SHORTCUT, _SHORTCUT.replace("@senders4", "@behind4"))),
)
"""With rules and elements that no packet needs; on firewalls that are small."""

_ENGINE, _RELAY = "suricata/engine-servers.yaml", "relay/haproxy.cfg"
_LISTENER = "bind 127.0.0.1:61001 transparent ssl"
_CROSSINGS = "\t\tiifname . oifname vmap @crossings\n"
OPEN = Edit("open", _CROSSINGS, f"\t\tmeta mark set 0x4e000000 accept\n{_CROSSINGS}")

UNSEEN: Sequence[Edit] = (
    Edit("engine that looks on", "copy-mode: ips", "copy-mode: tap", file=_ENGINE),
    Edit("engine of one way", "copy-iface: servers", "copy-iface: elsewhere", file=_ENGINE),
    Edit("no engine", "af-packet:", "af-xdp:", file=_ENGINE),
    Edit("more threads", "threads: 1", "threads: 2", file=_ENGINE, holds=True),
    Edit("certificates not demanded", "verify required strict-sni", "verify optional strict-sni", file=_RELAY),
    Edit("another's listener", _LISTENER, _LISTENER.replace("61001", "61002"), file=_RELAY),
    Edit("no listener", "frontend identity-record-notice\n", "backend unused\n", file=_RELAY),
    Edit("listener in clear", _LISTENER, _LISTENER.removesuffix(" ssl"), file=_RELAY),
    Edit("listener that nobody opened", "to 127.0.0.1:61001", "to 127.0.0.1:61009"),
    OPEN,
)
"""With connections that no engine and no relay sees."""

OPENED: Sequence[tuple[str, ...]] = (
    ("tachikawa-internet-fw", "tachikawa-municipal-fw"),
    ("shinagawa-municipal-fw", "shinagawa-line-fw", "tokyo-fw"),
    ("shinagawa-liaison-fw", "immigration-fw", "centre-agency-fw"),
)
"""Firewalls that together, each with :data:`OPEN`, break an invariant."""
