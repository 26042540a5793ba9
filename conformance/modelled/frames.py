"""From a packet of the model to the bytes of one."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from scapy.utils import checksum

from netpolicy.proof import fields
from netpolicy.proof.evaluate import Packet
from netpolicy.proof.fields import ICMP, ICMPV6, TCP, UDP, Family

MAGIC = 0x6E65_7470
TAIL = struct.Struct("!II")
"""At the end of every packet: a magic number, and the packet's own."""
SCTP, UDPLITE = 132, 136
_EXTENSION = {"hbh": 0, "dst": 60, "rt": 43, "frag": 44}
"""In the order of the headers (RFC 8200, 4.1)."""
_INIT_CHUNK = struct.pack("!BBHIIHHI", 1, 0, 20, 1, 65536, 1, 1, 1)
_HEADERS = {TCP: 20, UDP: 8, ICMP: 8, ICMPV6: 8, SCTP: 32, 33: 16, UDPLITE: 8}


@dataclass(frozen=True, slots=True)
class Inner:
    """What an ICMP error says it is about: a datagram (UDP)."""

    source: int
    destination: int
    source_port: int
    port: int


@dataclass(frozen=True, slots=True)
class Form:
    """What the model does not speak of and the kernel looks at all the same."""

    number: int
    broken: bool = False
    """Its transport header is malformed, so that it belongs to no connection."""
    inner: Inner | None = None


def shortest(packet: Packet, form: Form) -> int:
    """Return the fewest bytes that a packet can have."""
    return _network_length(packet) + len(_upper(packet, form)) + TAIL.size


def build(packet: Packet, form: Form) -> bytes:
    """Return the packet from its network header on; its length must not be under the shortest."""
    upper = _upper(packet, form)
    length = packet.number(fields.LENGTH)
    rest = length - _network_length(packet) - len(upper) - TAIL.size
    if packet[fields.PROTOCOL] in {UDP, UDPLITE} and not form.broken:
        size = len(upper) + rest + TAIL.size if packet[fields.PROTOCOL] == UDP else 0
        upper = upper[:4] + struct.pack("!H", size) + upper[6:]
    if packet[fields.PROTOCOL] == SCTP:
        upper = upper[:14] + struct.pack("!H", len(upper) - 12 + rest + TAIL.size) + upper[16:]
    body = upper + bytes(rest) + TAIL.pack(MAGIC, form.number)
    return (_ipv4 if packet.family is Family.IPV4 else _ipv6)(packet, form, body)


def number_of(packet: bytes) -> int | None:
    """Return the number of a packet, None if it is none of ours."""
    if len(packet) < TAIL.size:
        return None
    magic, number = TAIL.unpack_from(packet, len(packet) - TAIL.size)
    return int(number) if magic == MAGIC else None


def extensions(packet: Packet) -> list[str]:
    """Return the extension headers of a packet in their order."""
    found = [name for name in _EXTENSION if packet[fields.EXTENSIONS[name]]]
    wanted = fields.WALKED.get(packet.number(fields.NEXT_HEADER))
    if wanted in found and "hbh" not in found and wanted != "frag":
        found.remove(wanted)
        found.insert(0, wanted)
    return found


def next_header(packet: Packet) -> int:
    """Return what the fixed header announces."""
    found = extensions(packet)
    return _EXTENSION[found[0]] if found else packet.number(fields.PROTOCOL)


def _network_length(packet: Packet) -> int:
    if packet.family is Family.IPV4:
        return packet.number(fields.HEADER_LENGTH) * 4
    return 40 + 8 * len(extensions(packet)) + (16 if "rt" in extensions(packet) else 0)


def _ipv4(packet: Packet, form: Form, body: bytes) -> bytes:
    words = packet.number(fields.HEADER_LENGTH)
    header = struct.pack(
        "!BBHHHBBH4s4s",
        4 << 4 | words,
        packet.number(fields.DSCP) << 2 | packet.number(fields.ECN),
        packet.number(fields.LENGTH),
        form.number & 0xFFFF or 1,
        packet.number(fields.FRAG_OFF),
        packet.number(fields.TTL),
        packet.number(fields.PROTOCOL),
        0,
        packet.number(fields.SADDR).to_bytes(4, "big"),
        packet.number(fields.DADDR).to_bytes(4, "big"),
    )
    header += b"\x01" * (words * 4 - 20)  # options: nothing, again and again
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body


def _ipv6(packet: Packet, form: Form, body: bytes) -> bytes:
    names = extensions(packet)
    followers = [*(_EXTENSION[name] for name in names[1:]), packet.number(fields.PROTOCOL)]
    chain = b"".join(_extension(name, follower, packet, form) for name, follower in zip(names, followers, strict=False))
    traffic_class = packet.number(fields.DSCP) << 2 | packet.number(fields.ECN)
    header = struct.pack(
        "!IHBB16s16s",
        6 << 28 | traffic_class << 20 | _flow_label(packet),
        len(chain) + len(body),
        next_header(packet),
        packet.number(fields.TTL),
        packet.number(fields.SADDR).to_bytes(16, "big"),
        packet.number(fields.DADDR).to_bytes(16, "big"),
    )
    return header + chain + body


def _flow_label(packet: Packet) -> int:
    """Return the rest of the bytes that the kernel takes for ports where there are none."""
    if not packet.later_fragment:
        return 0
    return (packet.number(fields.SPORT) & 0xF) << 16 | packet.number(fields.DPORT)


def _extension(name: str, follower: int, packet: Packet, form: Form) -> bytes:
    if name == "frag":
        offset = 64 if packet.number(fields.LATER_FRAGMENT) else 0
        return struct.pack("!BBHI", follower, 0, offset << 3 | packet.number(fields.MORE_FRAGMENTS), form.number)
    if name == "rt":
        return struct.pack("!BBBBI16s", follower, 2, 4, 0, 0, bytes(16))  # no segments are left (RFC 8754)
    return struct.pack("!BBBB4s", follower, 0, 1, 4, bytes(4))  # padding


def _upper(packet: Packet, form: Form) -> bytes:
    """Return the transport header, without lengths."""
    protocol = packet.number(fields.PROTOCOL)
    ports = struct.pack("!HH", packet.number(fields.SPORT), packet.number(fields.DPORT))
    if protocol == TCP:
        words, flags = packet.number(fields.DATA_OFFSET), packet.number(fields.TCP_FLAGS)
        header = ports + struct.pack("!IIBBHHH", 1000, 1000, words << 4, flags, 8192, 0, 0)
        options = (struct.pack("!BBH", kind, 4, 0xF989) for kind, each in fields.TCP_OPTIONS.items() if packet[each])
        return (header + b"".join(options)).ljust(4 * words, b"\x01")
    if protocol == UDP:
        return ports + struct.pack("!HH", 0xFFFF if form.broken else 0, 0)
    if protocol == UDPLITE:
        return ports + struct.pack("!HH", 0xFFFF if form.broken else 0, 1)
    if protocol == SCTP:
        return ports + bytes(8) + _INIT_CHUNK
    if protocol in {ICMP, ICMPV6}:
        rest = bytes(4) if form.inner is not None else struct.pack("!HH", form.number & 0xFFFF, 0)
        return ports + rest + (_inner(packet.family, form.inner) if form.inner is not None else b"")
    return ports + bytes(_HEADERS.get(protocol, 8) - 4)


def _inner(family: Family, inner: Inner) -> bytes:
    datagram = struct.pack("!HHHH", inner.source_port, inner.port, 8, 0)
    source, destination = (each.to_bytes(family.bits // 8, "big") for each in (inner.source, inner.destination))
    if family is Family.IPV4:
        header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, UDP, 0, source, destination)
        return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + datagram
    return struct.pack("!IHBB16s16s", 6 << 28, 8, UDP, 64, source, destination) + datagram
