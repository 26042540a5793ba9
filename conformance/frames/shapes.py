"""How a packet can stand in a frame, beside the one way that a firewall takes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from scapy.utils import checksum

IPV4, IPV6 = 0x0800, 0x86DD
_CTAG, _STAG, _QINQ = 0x8100, 0x88A8, 0x9100
_BROADCAST, _MULTICAST = b"\xff" * 6, bytes.fromhex("01005e000001")
_OTHER = bytes.fromhex("02ffffffff01")
_PAUSE = bytes.fromhex("0180c2000001")
_LLDP = bytes.fromhex("0180c200000e")
BESIDES = "bytes behind a packet that says the same"
"""Without an engine what the packet itself says passes; its bytes are permitted ones then."""
_SHORTEST = 60
"""Bytes of an Ethernet frame without its check sequence (IEEE 802.3)."""


@dataclass(frozen=True, slots=True)
class Around:
    """What a frame is made of."""

    to: bytes
    """MAC address of the interface that it is for."""
    sender: bytes
    packet: bytes
    """An IP packet that would pass by itself, up to what it says."""
    payload: bytes
    """What is said in it."""

    @property
    def kind(self) -> int:
        """Its EtherType."""
        return IPV4 if self.packet[0] >> 4 == 4 else IPV6

    def frame(self, *types: int | bytes, packet: bytes | None = None, to: bytes | None = None) -> bytes:
        """Return the frame: between addresses and packet stand EtherTypes (numbers) and other bytes, in order."""
        middle = b"".join(each.to_bytes(2, "big") if isinstance(each, int) else each for each in types)
        return (to or self.to) + self.sender + middle + (self.packet if packet is None else packet)


Shape = Callable[[Around], bytes]


def shapes() -> Iterator[tuple[str, Shape]]:
    """Yield each shape with what it is called; none of them may carry a byte to the far side."""
    yield from _tags()
    yield from _types()
    yield from _addresses()
    yield from _lengths()


def plain(around: Around) -> bytes:
    """Return the one shape that passes."""
    return around.frame(around.kind)


def _tags() -> Iterator[tuple[str, Shape]]:
    for name, kind in (("802.1Q", _CTAG), ("802.1ad", _STAG), ("0x9100", _QINQ)):
        for count in range(1, 9):
            yield f"{count} {name} tags of VLAN 0", _tagged(*[(kind, 0)] * count)
    for vlan in (1, 5, 4095):
        yield f"802.1Q tag of VLAN {vlan}", _tagged((_CTAG, vlan))
        yield f"VLAN 0 four times, then {vlan}", _tagged(*[(_CTAG, 0)] * 4, (_CTAG, vlan))
        yield f"VLAN {vlan}, then 0 four times", _tagged((_CTAG, vlan), *[(_CTAG, 0)] * 4)
    yield "priority tag", _tagged((_CTAG, 0xE000))
    yield "four priority tags, drop eligible", _tagged(*[(_CTAG, 0xF000)] * 4)
    yield "802.1ad around 802.1Q, VLAN 0", _tagged((_STAG, 0), (_CTAG, 0))
    yield "802.1ad and 802.1Q in turn, VLAN 0", _tagged(*[(_STAG, 0), (_CTAG, 0)] * 3)
    yield "802.1Q around 802.1ad, VLAN 0", _tagged(*[(_CTAG, 0), (_STAG, 0)] * 2)


def _tagged(*tags: tuple[int, int]) -> Shape:
    def shape(around: Around) -> bytes:
        between = b"".join(struct.pack("!HH", kind, value) for kind, value in tags)
        return around.frame(between, around.kind)

    return shape


def _types() -> Iterator[tuple[str, Shape]]:
    """Yield packets behind another EtherType, or none, or inside of another header."""
    yield "MPLS, one label", lambda each: each.frame(0x8847, struct.pack("!I", 16 << 12 | 1 << 8 | 64))
    yield (
        "MPLS, explicit null",
        lambda each: each.frame(0x8847, struct.pack("!I", (0 if each.kind == IPV4 else 2) << 12 | 1 << 8 | 64)),
    )
    yield "MPLS multicast", lambda each: each.frame(0x8848, struct.pack("!I", 16 << 12 | 1 << 8 | 64))
    yield "PPPoE session", partial(_pppoe, 0x8864)
    yield "PPPoE discovery", partial(_pppoe, 0x8863)
    yield "802.1ah", lambda each: each.frame(0x88E7, bytes(4), each.to, each.sender, each.kind)
    yield "MACsec", lambda each: each.frame(0x88E5, bytes.fromhex("000000000001"), each.kind)
    yield "transparent Ethernet bridging", lambda each: each.frame(0x6558, each.to, each.sender, each.kind)
    yield "ERSPAN", lambda each: each.frame(0x88BE, bytes(8), each.to, each.sender, each.kind)
    yield "TRILL", lambda each: each.frame(0x22F3, bytes(6), each.to, each.sender, each.kind)
    yield "NSH", lambda each: each.frame(0x894F, bytes.fromhex("00020101000001ff"))
    yield "VN-Tag", lambda each: each.frame(0x8926, bytes(4), each.kind)
    yield "FabricPath", lambda each: each.frame(0x8903, bytes(2), each.to, each.sender, each.kind)
    yield "EtherType of HSR", lambda each: each.frame(0x892F, bytes(4), each.kind)
    yield "EtherType of DSA", lambda each: each.frame(0xDADA, bytes(4), each.kind)
    others = (
        *("FCoE 8906", "EAPOL 888e", "RARP 8035", "LLDP 88cc", "pause 8808", "slow 8809", "loop 9000", "IPX 8137"),
        *("PUP 0200", "X.25 0805", "AARP 80f3", "local 88b5", "B.A.T.M.A.N. 4305", "QinQ 9200", "QinQ 9300"),
        *("ARP 0806", "zero 0000", "last ffff"),
    )
    for other in others:
        name, _, number = other.rpartition(" ")
        yield f"EtherType of {name}", partial(_typed, int(number, 16))
    yield "pause, to its own address", lambda each: each.frame(0x8808, to=_PAUSE)
    yield "LLDP, to its own address", lambda each: each.frame(0x88CC, to=_LLDP)
    yield "802.3 with LLC", lambda each: each.frame(len(each.packet) + 3, bytes.fromhex("060603"))
    yield "802.3 with SNAP", lambda each: each.frame(len(each.packet) + 8, bytes.fromhex("aaaa03000000"), each.kind)
    yield (
        "802.3 with SNAP of a bridge tunnel",
        lambda each: each.frame(len(each.packet) + 8, bytes.fromhex("aaaa030000f8"), each.kind),
    )
    yield (
        "802.3 with SNAP in a tag",
        lambda each: each.frame(_CTAG, bytes(2), len(each.packet) + 8, bytes.fromhex("aaaa03000000"), each.kind),
    )
    yield "802.3 without LLC", lambda each: each.frame(len(each.packet))
    yield "the other family's EtherType", lambda each: each.frame(IPV4 + IPV6 - each.kind)
    yield (
        "another version in the header",
        lambda each: each.frame(each.kind, packet=bytes((each.packet[0] ^ 0x20,)) + each.packet[1:]),
    )


def _typed(kind: int, around: Around) -> bytes:
    return around.frame(kind)


def _addressed(to: bytes, around: Around) -> bytes:
    return around.frame(around.kind, to=to)


def _pppoe(kind: int, around: Around) -> bytes:
    protocol = 0x21 if around.kind == IPV4 else 0x57
    return around.frame(kind, struct.pack("!BBHHH", 0x11, 0, 1, len(around.packet) + 2, protocol))


def _addresses() -> Iterator[tuple[str, Shape]]:
    for name, to in (("broadcast", _BROADCAST), ("multicast", _MULTICAST), ("somebody else's", _OTHER)):
        yield f"a {name} MAC address", partial(_addressed, to)
    yield "a broadcast MAC address, tagged", lambda each: each.frame(_CTAG, bytes(2), each.kind, to=_BROADCAST)


def _lengths() -> Iterator[tuple[str, Shape]]:
    """Yield frames that are longer or shorter than their packets say."""
    yield "bytes behind the packet", lambda each: _empty(each) + each.payload
    yield "a packet behind the packet", lambda each: _empty(each) + each.packet
    yield BESIDES, lambda each: plain(each) + each.payload * 10
    yield "a frame shorter than its packet", lambda each: plain(each)[:-1]
    yield "a frame that ends in its header", lambda each: plain(each)[:30]
    yield "a frame without a packet", lambda each: plain(each)[:14]
    yield "a header longer than its frame", _long_header


def _empty(around: Around) -> bytes:
    """Return the frame with a packet that says it holds nothing, though it is the same, padded as Ethernet has it."""
    transport = 20 if around.kind == IPV4 else 40
    packet = bytearray(around.packet[: transport + (around.packet[transport + 12] >> 4) * 4])
    if around.kind == IPV4:
        struct.pack_into("!H", packet, 2, len(packet))
        struct.pack_into("!H", packet, 10, 0)
        struct.pack_into("!H", packet, 10, checksum(bytes(packet[:20])))
    else:
        struct.pack_into("!H", packet, 4, len(packet) - 40)
    return around.frame(around.kind, packet=bytes(packet)).ljust(_SHORTEST, b"\0")


def _long_header(around: Around) -> bytes:
    packet = bytearray(around.packet)
    transport = 20 if around.kind == IPV4 else 40
    packet[transport + 12] = 0xF0  # 60 bytes of TCP header
    return around.frame(around.kind, packet=bytes(packet[: transport + 40]))
