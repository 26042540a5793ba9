"""What a ruleset can see of a packet, as fields of so many bits.

A packet is a value for each field.  The transport header is its first four bytes and the flags of TCP: the type and
code of ICMP are the two bytes that would be a source port (RFC 792, RFC 4443), as they are to ``th sport``.

Of a fragment other than the first these are the bytes that the kernel takes for a transport header (measured, 6.18): in
IPv4 those behind the network header, in IPv6 the fixed header's own, so that the source port is 24576 and more.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass


class Family(enum.IntEnum):
    """``meta nfproto`` (linux/netfilter.h)."""

    IPV4 = 2
    IPV6 = 10

    @property
    def version(self) -> int:
        """4 or 6."""
        return 4 if self is Family.IPV4 else 6

    @property
    def bits(self) -> int:
        """Of an address."""
        return 32 if self is Family.IPV4 else 128


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """Some bits of a packet, or of what the kernel knows about it. There is one object of each."""

    name: str
    """As nft says it, where it has one word for it."""
    bits: int
    """Of IPv4; addresses of IPv6 have 128."""
    family: Family | None = None
    """Packets of the other have no such field."""

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Callable[[str], Field], tuple[str]]:
        return _field, (self.name,)


def _field(name: str) -> Field:
    """Return the field of a name."""
    return next(each for each in (*FIELDS, NFPROTO) if each.name == name)


IIF, OIF = Field("iifname", 0), Field("oifname", 0)
"""Names, not numbers: each space of packets has as many bits for them as it has names."""
STATE, DIRECTION, ZONE = Field("ct state", 3), Field("ct direction", 1), Field("ct zone", 16)
CT_MARK = Field("ct mark", 32)
NFPROTO = Field("meta nfproto", 8)
"""The family, which all packets of one space have in common."""
PROTOCOL = Field("l4proto", 8)
SADDR, DADDR = Field("saddr", 32), Field("daddr", 32)
SPORT, DPORT = Field("sport", 16), Field("dport", 16)
"""Bytes 0 to 1 and 2 to 3 of the transport header, whatever the protocol."""
TCP_FLAGS = Field("tcp flags", 8)
DATA_OFFSET = Field("tcp doff", 4)
"""Words of four bytes of the TCP header."""
TCP_OPTIONS = {34: Field("tcp option fastopen", 1), 254: Field("tcp option 254", 1)}
"""Whether there is such an option, by kind (RFC 7413, RFC 6994)."""
TTL = Field("ttl", 8)
"""Hop limit in IPv6."""
DSCP, ECN = Field("dscp", 6), Field("ecn", 2)
FRAG_OFF = Field("ip frag-off", 16, Family.IPV4)
"""Reserved bit, don't fragment, more fragments, and 13 bits of offset."""
HEADER_LENGTH = Field("ip hdrlength", 4, Family.IPV4)
NEXT_HEADER = Field("ip6 nexthdr", 8, Family.IPV6)
"""Of the fixed header."""
LATER_FRAGMENT = Field("ip6 later fragment", 1, Family.IPV6)
"""Whether its Fragment header says that it is not the first."""
MORE_FRAGMENTS = Field("ip6 more fragments", 1, Family.IPV6)
"""Whether it says that it is not the last.  One that is first and last is no part of another packet (RFC 6946)."""
EXTENSIONS = {name: Field(f"exthdr {name}", 1, Family.IPV6) for name in ("hbh", "rt", "frag", "dst")}
"""Whether there is such an extension header (RFC 8200)."""
ODD_FRAGMENT = Field("ip6 odd fragment", 1, Family.IPV6)
"""Whether it is not the last one, and no multiple of 8 bytes long: the kernel does not hold it, but lets it pass."""
MARK = Field("meta mark", 32)
LENGTH = Field("meta length", 16)
PACKET_TYPE = Field("meta pkttype", 3)
DAY, HOUR, TIME = Field("meta day", 3), Field("meta hour", 17), Field("meta time", 32)
"""Day of the week from Sunday on; seconds since midnight; seconds since 1970; all in UTC."""
TRANSPARENT = Field("socket transparent", 1)
"""Whether a socket of this host has these ends and is transparent."""

FIELDS = (
    *(IIF, OIF, STATE, DIRECTION, PROTOCOL, NEXT_HEADER, *EXTENSIONS.values(), LATER_FRAGMENT, MORE_FRAGMENTS),
    *(ODD_FRAGMENT, DPORT, DADDR, SADDR, SPORT, TCP_FLAGS, TTL, FRAG_OFF, HEADER_LENGTH, DSCP, ECN, LENGTH),
    *(DATA_OFFSET, *TCP_OPTIONS.values(), PACKET_TYPE, TRANSPARENT, DAY, HOUR, TIME, ZONE, MARK, CT_MARK),
)
"""In the order of the diagrams' variables. What constrains each other stands side by side, and the destination before
the source: that halves them. What almost every set holds at 0 stands last, where all sets share those nodes."""


class State(enum.IntEnum):
    """What connection tracking makes of a packet; the numbers are those of ``ct state`` in nft."""

    INVALID = 1
    ESTABLISHED = 2
    RELATED = 4
    NEW = 8
    UNTRACKED = 64


STATES = tuple(State)
"""A value of the field STATE is an index of it."""

ORIGINAL, REPLY = 0, 1
"""Values of DIRECTION."""

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
"""Values of PROTOCOL (IANA, Assigned Internet Protocol Numbers)."""

BARE_OFFSET = 8
"""Of a TCP header with 12 bytes of options: what stands for any that ends a packet."""


def bare_length(family: Family, words: int = BARE_OFFSET) -> int:
    """Return the LENGTH of a packet that is a header without options and a TCP header of so many words."""
    return (20 if family is Family.IPV4 else 40) + 4 * words


WALKED = {0: "hbh", 43: "rt", 44: "frag", 51: None, 60: "dst"}
"""The values of NEXT_HEADER that the kernel looks behind for the transport protocol (``ipv6_ext_hdr``), and the field
of the header that they announce, where there is one."""

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
"""Bits of TCP_FLAGS (RFC 9293)."""


def bits_of(field: Field, family: Family) -> int:
    """Return the width of a field that is not an interface's name."""
    return family.bits if field in {SADDR, DADDR} else field.bits
