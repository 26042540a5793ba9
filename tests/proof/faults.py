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
_TOO_BIG = "ct state related icmp type destination-unreachable icmp code frag-needed"
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
    Edit("mark forgotten", f"{_TOO_BIG} meta mark set 0x4e000000 accept", f"{_TOO_BIG} accept"),
)
