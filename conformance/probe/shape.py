"""The shapes of probes: authored once with scapy, frozen to bytes, and then only patched.

Every frame ends with eight bytes, a magic number and its own number, so that it is known again wherever it appears.
scapy builds and sends 1,300 frames a second; a patched frame takes a few microseconds.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_LSRR, IPOption_Router_Alert, IPOption_RR, IPOption_SSRR
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6Unknown,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet as ScapyPacket
from scapy.packet import Raw

from netpolicy.reasons import DenyReason
from netpolicy.topology.model import Address

_UNASSIGNED = 252
"""A kind of TCP option that nobody knows; of those for experiments (RFC 4727) an engine reads the length."""
MAGIC = 0x6E65_7470
"""``netp``."""
TAIL = struct.Struct("!II")
SEQUENCE = 1000
"""Of every SYN; its answer acknowledges the next one."""
ANSWER_SEQUENCE = 5000

_ETHERNET = 14
_SOURCE = {4: "192.0.2.1", 6: "2001:db8::1"}
_DESTINATION = {4: "192.0.2.2", 6: "2001:db8::2"}
_MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}  # scapy would ask the network for others
_PROTOCOL = {"tcp": 6, "udp": 17}


class Shape(enum.StrEnum):
    """What a probe looks like."""

    SYN = "SYN"
    SYN_ACK = "SYN-ACK"
    ACK = "ACK"
    FIN = "FIN"
    RST = "RST"
    NULL = "null scan"
    XMAS = "Xmas scan"
    SYN_FIN = "SYN-FIN"
    UDP = "UDP"
    ECHO = "echo request"
    ECHO_REPLY = "echo reply"
    SYN_DATA = "SYN with data"
    SYN_ACK_DATA = "SYN-ACK with data"
    RST_DATA = "RST with data"
    FAST_OPEN = "TCP Fast Open"
    FAST_OPEN_UNASSIGNED = "TCP Fast Open, experimental option"
    PATH_MTU = "forged path-MTU error"
    UNREACHABLE = "forged unreachable error"
    SOURCE_QUENCH = "forged source quench"
    TIME_EXCEEDED = "forged time-exceeded error"
    PARAMETER_PROBLEM = "forged parameter-problem error"
    REDIRECT = "redirect"
    ROUTER_ADVERTISEMENT = "router advertisement"
    NEIGHBOUR_ADVERTISEMENT = "neighbour advertisement"
    FIRST_FRAGMENT = "first fragment"
    LATER_FRAGMENT = "later fragment"
    LOOSE_ROUTE = "loose source route"
    STRICT_ROUTE = "strict source route"
    RECORD_ROUTE = "record route"
    ROUTER_ALERT = "router alert"
    HOP_BY_HOP = "hop-by-hop options"
    ROUTING_HEADER = "routing header"
    DESTINATION_OPTIONS = "destination options"
    TTL_1 = "TTL 1"
    TTL_0 = "TTL 0"


_WITH_DATA = {Shape.SYN_DATA: "S", Shape.SYN_ACK_DATA: "SA", Shape.RST_DATA: "R"}
_FAST_OPEN = {Shape.FAST_OPEN: (34, b"\x01" * 8), Shape.FAST_OPEN_UNASSIGNED: (254, b"\xf9\x89" + b"\x01" * 6)}
"""TCP options by kind, each with a cookie (RFC 7413; RFC 6994)."""
_ERRORS = {
    Shape.PATH_MTU: ((3, 4), (2, 0)),
    Shape.UNREACHABLE: ((3, 3), (1, 4)),
    Shape.SOURCE_QUENCH: ((4, 0), None),
    Shape.TIME_EXCEEDED: ((11, 0), (3, 0)),
    Shape.PARAMETER_PROBLEM: ((12, 0), (4, 0)),
}
"""Type and code of ICMP errors (RFC 792), and of ICMPv6 (RFC 4443)."""
_FLAGS = {
    **_WITH_DATA,
    Shape.SYN: "S",
    Shape.SYN_ACK: "SA",
    Shape.ACK: "A",
    Shape.FIN: "F",
    Shape.RST: "R",
    Shape.NULL: "",
    Shape.XMAS: "FPU",
    Shape.SYN_FIN: "SF",
}
_ODDITIES = {
    **dict.fromkeys((shape for shape in _FLAGS if shape is not Shape.SYN), DenyReason.INVALID),
    **dict.fromkeys((*_WITH_DATA, *_FAST_OPEN), DenyReason.SYN_DATA),
    Shape.ECHO_REPLY: DenyReason.INVALID,
    **dict.fromkeys((*_ERRORS, Shape.REDIRECT), DenyReason.ICMP_ERROR),
    Shape.FIRST_FRAGMENT: DenyReason.FRAGMENT,
    Shape.LATER_FRAGMENT: DenyReason.FRAGMENT,
    **dict.fromkeys(
        (Shape.LOOSE_ROUTE, Shape.STRICT_ROUTE, Shape.RECORD_ROUTE, Shape.ROUTER_ALERT), DenyReason.IP_OPTION
    ),
    **dict.fromkeys((Shape.HOP_BY_HOP, Shape.ROUTING_HEADER, Shape.DESTINATION_OPTIONS), DenyReason.EXTENSION_HEADER),
    Shape.TTL_1: DenyReason.TTL,
    Shape.TTL_0: DenyReason.TTL,
}
_ONLY_IPV4 = {Shape.SOURCE_QUENCH, Shape.LOOSE_ROUTE, Shape.STRICT_ROUTE, Shape.RECORD_ROUTE}
_ONLY_IPV6 = {
    Shape.HOP_BY_HOP,
    Shape.ROUTING_HEADER,
    Shape.DESTINATION_OPTIONS,
    Shape.ROUTER_ADVERTISEMENT,
    Shape.NEIGHBOUR_ADVERTISEMENT,
}
_ICMP = {
    Shape.ECHO,
    Shape.ECHO_REPLY,
    *_ERRORS,
    Shape.REDIRECT,
    Shape.ROUTER_ADVERTISEMENT,
    Shape.NEIGHBOUR_ADVERTISEMENT,
}


def oddity(shape: Shape, family: int) -> DenyReason | None:
    """Return why a shape alone is refused, None if addresses and ports decide."""
    if shape is Shape.ROUTER_ALERT and family == 6:
        return DenyReason.EXTENSION_HEADER  # it is a hop-by-hop option there (RFC 2711)
    return _ODDITIES.get(shape)


def transport(shape: Shape) -> str:
    """Return ``tcp``, ``udp`` or ``icmp``."""
    if shape in _ICMP:
        return "icmp"
    return "udp" if shape is Shape.UDP else "tcp"


def exists(shape: Shape, family: int) -> bool:
    """Tell whether there is such a shape in a family."""
    return shape not in (_ONLY_IPV6 if family == 4 else _ONLY_IPV4)


@dataclass(frozen=True, slots=True)
class Template:
    """A frozen frame and where it is patched."""

    raw: bytes
    family: int
    ports: int | None
    """Offset of the source port."""
    checksum: int
    """Offset of the transport checksum; 0: the shape is refused before anything would look at it."""
    base: int
    """Sum of 16-bit words of the pseudo header and the transport part with all patched fields zero."""
    pseudo_header: bool
    """The checksum covers the addresses; only that of ICMP over IPv4 (RFC 792) does not."""
    header_base: int
    """The same of the IPv4 header."""

    def frame(
        self, number: int, macs: bytes, source: Address, destination: Address, *, source_port: int, port: int
    ) -> bytes:
        """Return a frame with a number of its own.

        Args:
            number: Below 2**32.
            macs: Destination and source MAC address, packed.
            source: Of the template's family.
            destination: Of the template's family.
            source_port: 0 for ICMP.
            port: The destination port, 0 for ICMP.

        """
        frame = bytearray(self.raw)
        frame[0:12] = macs
        (source_packed, source_sum), (destination_packed, destination_sum) = _words(source), _words(destination)
        addresses = source_sum + destination_sum
        if self.family == 4:
            frame[26:34] = source_packed + destination_packed
            struct.pack_into("!H", frame, 24, _folded(self.header_base + addresses))
        else:
            frame[22:54] = source_packed + destination_packed
        if self.ports is not None:
            struct.pack_into("!HH", frame, self.ports, source_port, port)
        struct.pack_into("!I", frame, len(frame) - 4, number)
        if self.checksum:
            total = self.base + (addresses if self.pseudo_header else 0) + (number >> 16) + (number & 0xFFFF)
            if self.ports is not None:
                total += source_port + port
            struct.pack_into("!H", frame, self.checksum, _folded(total) or 0xFFFF)
        return bytes(frame)


def number_of(frame: bytes) -> int | None:
    """Return the number of a probe's frame, None if it is none."""
    if len(frame) < TAIL.size:
        return None
    magic, number = TAIL.unpack_from(frame, len(frame) - TAIL.size)
    return int(number) if magic == MAGIC else None


@cache
def template(shape: Shape, family: int) -> Template:
    """Return the template of a shape in a family."""
    header, upper = _author(shape, family)
    raw = bytes(Ether(**_MACS) / header / upper)
    offset = _ETHERNET + len(bytes(header))
    kind = transport(shape)
    checksum = offset + {"tcp": 16, "udp": 6, "icmp": 2}[kind]
    if oddity(shape, family) in {DenyReason.FRAGMENT, DenyReason.EXTENSION_HEADER}:
        checksum = 0
    protocol = _PROTOCOL.get(kind, 1 if family == 4 else 58)
    blank = bytearray(raw)
    if family == 4:
        blank[26:34] = bytes(8)
        blank[24:26] = bytes(2)
    else:
        blank[22:54] = bytes(32)
    if kind != "icmp":
        blank[offset : offset + 4] = bytes(4)
    blank[-4:] = bytes(4)
    if checksum:
        blank[checksum : checksum + 2] = bytes(2)
    pseudo_header = kind != "icmp" or family == 6
    base = _sum(bytes(blank[offset:])) + (protocol + len(raw) - offset if pseudo_header else 0)
    return Template(
        raw=bytes(blank),
        family=family,
        ports=None if kind == "icmp" else offset,
        checksum=checksum,
        base=base,
        pseudo_header=pseudo_header,
        header_base=_sum(bytes(blank[_ETHERNET:offset])) if family == 4 else 0,
    )


def _author(shape: Shape, family: int) -> tuple[ScapyPacket, ScapyPacket]:
    """Return the network header with its extensions, and the transport part, as scapy writes them."""
    tail = Raw(TAIL.pack(MAGIC, 0))
    upper = _upper(shape, family, tail)
    if family == 4:
        header = IP(src=_SOURCE[4], dst=_DESTINATION[4], id=0x4E50, **{"flags": "DF", **_ipv4(shape)})
        return header, upper
    hops = 255 if shape in {Shape.ROUTER_ADVERTISEMENT, Shape.NEIGHBOUR_ADVERTISEMENT, Shape.REDIRECT} else 64
    hops = {Shape.TTL_1: 1, Shape.TTL_0: 0}.get(shape, hops)
    header6 = IPv6(src=_SOURCE[6], dst=_DESTINATION[6], hlim=hops)
    extension = {
        Shape.FIRST_FRAGMENT: lambda: IPv6ExtHdrFragment(offset=0, m=1, id=7),
        Shape.LATER_FRAGMENT: lambda: IPv6ExtHdrFragment(offset=2, m=0, id=7),
        Shape.HOP_BY_HOP: IPv6ExtHdrHopByHop,
        Shape.ROUTER_ALERT: IPv6ExtHdrHopByHop,
        Shape.ROUTING_HEADER: lambda: IPv6ExtHdrRouting(addresses=["2001:db8::3"]),
        Shape.DESTINATION_OPTIONS: IPv6ExtHdrDestOpt,
    }.get(shape)
    return header6 / extension() if extension else header6, upper


def _ipv4(shape: Shape) -> dict[str, object]:
    options: Callable[[], ScapyPacket] | None = {
        Shape.LOOSE_ROUTE: lambda: IPOption_LSRR(routers=["192.0.2.3"]),
        Shape.STRICT_ROUTE: lambda: IPOption_SSRR(routers=["192.0.2.3"]),
        Shape.RECORD_ROUTE: lambda: IPOption_RR(routers=["192.0.2.3"]),
        Shape.ROUTER_ALERT: IPOption_Router_Alert,
    }.get(shape)
    if options:
        return {"options": [options()]}
    fields: dict[Shape, dict[str, object]] = {
        Shape.FIRST_FRAGMENT: {"flags": "MF"},
        Shape.LATER_FRAGMENT: {"flags": 0, "frag": 4},
        Shape.TTL_1: {"ttl": 1},
        Shape.TTL_0: {"ttl": 0},
    }
    return fields.get(shape, {})


def _upper(shape: Shape, family: int, tail: ScapyPacket) -> ScapyPacket:
    if shape is Shape.UDP:
        return UDP(sport=0, dport=0) / tail
    if shape not in _ICMP:
        return _segment(shape, tail)
    if family == 4:
        inner = bytes(IP(src="192.0.2.9", dst="192.0.2.8") / TCP(sport=9, dport=9))
        if shape in _ERRORS:
            kind, code = _ERRORS[shape][0]
            return ICMP(type=kind, code=code) / Raw(inner) / tail
        return {
            Shape.ECHO: lambda: ICMP(type=8) / tail,
            Shape.ECHO_REPLY: lambda: ICMP(type=0) / tail,
            Shape.REDIRECT: lambda: ICMP(type=5, code=1, gw="192.0.2.7") / Raw(inner) / tail,
        }[shape]()
    inner = bytes(IPv6(src="2001:db8::9", dst="2001:db8::8") / TCP(sport=9, dport=9))
    if shape in _ERRORS:
        kind, code = _ERRORS[shape][1] or (0, 0)
        return ICMPv6Unknown(type=kind, code=code, msgbody=b"\0\0\x05\0" + inner + bytes(tail))
    return {
        Shape.ECHO: lambda: ICMPv6EchoRequest() / tail,
        Shape.ECHO_REPLY: lambda: ICMPv6EchoReply() / tail,
        Shape.REDIRECT: lambda: ICMPv6ND_Redirect(tgt="2001:db8::7", dst="2001:db8::6") / tail,
        Shape.ROUTER_ADVERTISEMENT: lambda: ICMPv6ND_RA() / tail,
        Shape.NEIGHBOUR_ADVERTISEMENT: lambda: ICMPv6ND_NA(tgt="2001:db8::7") / tail,
    }[shape]()


def _segment(shape: Shape, tail: ScapyPacket) -> ScapyPacket:
    """Return a TCP segment; what opens or resets a connection has its tail in an option, since it may have no data."""
    flags = _FLAGS.get(shape, "S")
    answer = flags == "SA"
    sequence = ANSWER_SEQUENCE if answer else SEQUENCE + 1 if flags == "R" else SEQUENCE  # of what a SYN has opened
    options: list[tuple[object, object]] = [_FAST_OPEN[shape]] if shape in _FAST_OPEN else []
    inside = shape not in _WITH_DATA and bool(set("SR") & set(flags))
    if inside:
        # Aligned, so that the number's checksum is that of whole words.
        options = [*options, *([("NOP", None)] * (2 if not options else 0)), (_UNASSIGNED, bytes(tail))]
    segment = TCP(flags=flags, seq=sequence, ack=SEQUENCE + 1 if answer else 0, window=65535, options=options)
    return segment if inside else segment / tail


@cache
def _words(address: Address) -> tuple[bytes, int]:
    return address.packed, _sum(address.packed)


def _sum(content: bytes) -> int:
    padded = content + b"\0" * (len(content) % 2)
    return sum(struct.unpack(f"!{len(padded) // 2}H", padded))


def _folded(total: int) -> int:
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF
