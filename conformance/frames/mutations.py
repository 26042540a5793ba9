"""Random changes to the frames of a permitted conversation."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from random import Random

from scapy.utils import checksum

from conformance.frames.shapes import IPV4

Mutation = Callable[[Random, bytearray], bytearray]
_ETHERNET = 14


def mutated(random: Random, frame: bytes, among: Sequence[str] | None = None) -> tuple[str, bytes]:
    """Return a frame with one to three changes, and the kind of the first; `among` are the kinds that may be."""
    found, kinds = bytearray(frame), []
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        kind = random.choice(among or KINDS)
        found = MUTATIONS[kind](random, found)
        kinds.append(kind)
    if random.random() < _MENDED:
        _mend(found)
    return kinds[0], bytes(found[:_LONGEST])


_MENDED = 0.75
"""Of the frames, have right checksums after all: with wrong ones little is read."""
_LONGEST = 1514


def _offsets(frame: bytes | bytearray) -> tuple[int, int]:
    """Return where the IP header begins, and where TCP does if there are no options and extensions."""
    return _ETHERNET, _ETHERNET + (20 if frame[12:14] == struct.pack("!H", IPV4) else 40)


def _flip(begin: int, end: int, random: Random, frame: bytearray) -> bytearray:
    """Flip one to four bits between two places."""
    for _ in range(random.randint(1, 4)):
        place = random.randrange(begin, max(begin + 1, min(end, len(frame))))
        if place < len(frame):
            frame[place] ^= 1 << random.randrange(8)
    return frame


def _bits_of_ip(random: Random, frame: bytearray) -> bytearray:
    ip, tcp = _offsets(frame)
    return _flip(ip, tcp - (8 if tcp - ip == 20 else 32), random, frame)


def _bits_of_tcp(random: Random, frame: bytearray) -> bytearray:
    _, tcp = _offsets(frame)
    return _flip(tcp + 4, tcp + 20, random, frame)


def _bits_of_ethernet(random: Random, frame: bytearray) -> bytearray:
    return _flip(0, _ETHERNET, random, frame)


def _tags(random: Random, frame: bytearray) -> bytearray:
    """Put tags before the packet: half of the time those that Linux takes off (VLAN 0), else any."""
    count = random.randint(1, 9)
    if random.random() < 0.5:
        tags = struct.pack("!HH", random.choice((0x8100, 0x88A8)), random.choice((0, 0xE000))) * count
    else:
        kinds, values = (0x8100, 0x88A8, 0x9100), (0, 0, 0xE000, 1, 4095)
        tags = b"".join(struct.pack("!HH", random.choice(kinds), random.choice(values)) for _ in range(count))
    return frame[:12] + tags + frame[12:]


def _lengths(random: Random, frame: bytearray) -> bytearray:
    ip, tcp = _offsets(frame)
    place = ip + (2 if tcp - ip == 20 else 4)
    if len(frame) >= place + 2:
        value = struct.unpack_from("!H", frame, place)[0] + random.choice((-40, -20, -8, -1, 1, 8, 20, 1000))
        struct.pack_into("!H", frame, place, value & 0xFFFF)
    return frame


def _fragment(random: Random, frame: bytearray) -> bytearray:
    ip, tcp = _offsets(frame)
    if tcp - ip == 20 and len(frame) >= ip + 8:
        value = random.choice((0x2000, 0x2000, 0x4000, 0x8000, 0)) | random.choice((0, 0, 1, 2, 3, 100))
        struct.pack_into("!H", frame, ip + 6, value)
        return frame
    header = struct.pack("!BBHI", 6, 0, random.choice((0, 1, 8, 9, 16)), random.getrandbits(32))
    return _inserted(frame, 44, header)


def _ttl(random: Random, frame: bytearray) -> bytearray:
    ip, tcp = _offsets(frame)
    place = ip + (8 if tcp - ip == 20 else 7)
    if len(frame) > place:
        frame[place] = random.choice((0, 1, 2, 3, 255))
    return frame


def _flags(random: Random, frame: bytearray) -> bytearray:
    _, tcp = _offsets(frame)
    if len(frame) > tcp + 13:
        frame[tcp + 13] = random.getrandbits(8)
    return frame


def _sequence(random: Random, frame: bytearray) -> bytearray:
    _, tcp = _offsets(frame)
    if len(frame) >= tcp + 12:
        place = tcp + random.choice((4, 4, 8))
        value = struct.unpack_from("!I", frame, place)[0]
        change = random.choice((-1000, -2, -1, 1, 2, 10, 1000, 60000, 1 << 31))
        struct.pack_into("!I", frame, place, (value + change) & 0xFFFFFFFF)
    return frame


def _options(random: Random, frame: bytearray) -> bytearray:
    """Put options into the TCP header, right ones and wrong ones."""
    _, tcp = _offsets(frame)
    options = b"".join(
        random.choice((b"\1", b"\0", b"\2\4\5\xb4", b"\3\3\7", b"\4\2", b"\x22\2", b"\x13\x12" + bytes(16), b"\x05\1"))
        for _ in range(random.randint(1, 6))
    )[:40]
    options += b"\1" * (-len(options) % 4)
    if len(frame) < tcp + 20:
        return frame
    found = frame[: tcp + 20] + options + frame[tcp + 20 :]
    found[tcp + 12] = (5 + len(options) // 4) << 4
    return _grown(found, len(options))


def _ip_options(random: Random, frame: bytearray) -> bytearray:
    """Put options into an IPv4 header, or an extension header behind an IPv6 one."""
    ip, tcp = _offsets(frame)
    if len(frame) < tcp:
        return frame
    if tcp - ip == 20:
        options = random.choice((b"\1\1\1\0", b"\x83\7\4\x0a\1\1\1\0", b"\x94\4\0\0", b"\x44\x50\0\0", bytes(40)))
        found = frame[:tcp] + options + frame[tcp:]
        found[ip] = 0x45 + len(options) // 4
        return _grown(found, len(options))
    kind = random.choice((0, 43, 44, 51, 60, 135, 139, 140))
    return _inserted(frame, kind, bytes((6, 0)) + bytes(random.choice((6, 6, 14))))


def _inserted(frame: bytearray, kind: int, header: bytes) -> bytearray:
    ip, tcp = _offsets(frame)
    if len(frame) < tcp:
        return frame
    found = frame[:tcp] + header + frame[tcp:]
    found[ip + 6] = kind
    return _grown(found, len(header))


def _truncated(random: Random, frame: bytearray) -> bytearray:
    return frame[: random.randint(_ETHERNET, max(_ETHERNET, len(frame) - 1))]


def _padded(random: Random, frame: bytearray) -> bytearray:
    return frame + random.choice((bytes(6), frame[_ETHERNET:], b"GET / HTTP/1.1\r\n", bytes(400)))


def _type(random: Random, frame: bytearray) -> bytearray:
    types = (0x0800, 0x86DD, 0x0806, 0x8847, 0x8864, 0x88E7, 0x88E5, 0x6558, 0x88BE, 0x8808, 0x0003, 0x05DC)
    struct.pack_into("!H", frame, 12, random.choice(types))
    return frame


def _encapsulated(random: Random, frame: bytearray) -> bytearray:
    middle = random.choice(
        (
            bytes.fromhex("8864110000010044") + b"\0\x21",
            bytes.fromhex("884700010140"),
            bytes.fromhex("0040aaaa03000000") + frame[12:14],
            bytes.fromhex("88e700000000") + frame[:14],
            bytes.fromhex("6558") + frame[:14],
        )
    )
    return frame[:12] + middle + frame[_ETHERNET:]


def _grown(frame: bytearray, more: int) -> bytearray:
    ip, tcp = _offsets(frame)
    place = ip + (2 if tcp - ip == 20 else 4)
    value = struct.unpack_from("!H", frame, place)[0]
    struct.pack_into("!H", frame, place, (value + more) & 0xFFFF)
    return frame


def _mend(frame: bytearray) -> None:
    """Set the checksums right, of what lies where it does in a plain frame or behind options of IPv4."""
    ip, tcp = _offsets(frame)
    if len(frame) < tcp + 20:
        return
    if tcp - ip == 20:
        tcp = ip + (frame[ip] & 0xF) * 4
        if tcp < ip + 20 or len(frame) < tcp + 20:
            return
        struct.pack_into("!H", frame, ip + 10, 0)
        struct.pack_into("!H", frame, ip + 10, checksum(bytes(frame[ip:tcp])))
        end = min(len(frame), ip + struct.unpack_from("!H", frame, ip + 2)[0])
        addresses = frame[ip + 12 : ip + 20]
    else:
        end = min(len(frame), ip + 40 + struct.unpack_from("!H", frame, ip + 4)[0])
        addresses = frame[ip + 8 : ip + 40]
    struct.pack_into("!H", frame, tcp + 16, 0)
    segment = bytes(frame[tcp:end])
    total = checksum(bytes(addresses) + struct.pack("!II", len(segment), 6) + segment)
    struct.pack_into("!H", frame, tcp + 16, total)


MUTATIONS: Mapping[str, Mutation] = {
    "nothing": lambda _random, frame: frame,
    "bits of IP": _bits_of_ip,
    "bits of TCP": _bits_of_tcp,
    "bits of Ethernet": _bits_of_ethernet,
    "tags": _tags,
    "lengths": _lengths,
    "fragment": _fragment,
    "TTL": _ttl,
    "flags": _flags,
    "sequence numbers": _sequence,
    "TCP options": _options,
    "IP options and extensions": _ip_options,
    "truncated": _truncated,
    "padded": _padded,
    "EtherType": _type,
    "encapsulated": _encapsulated,
}
KINDS = tuple(MUTATIONS)
