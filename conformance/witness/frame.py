"""The frame of a packet of the proof's model."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from scapy.utils import checksum

from conformance.probe.shape import MAGIC, SEQUENCE, TAIL
from netpolicy.proof import fields
from netpolicy.proof.evaluate import Packet
from netpolicy.proof.fields import Family

_IPV4, _IPV6 = b"\x08\0", b"\x86\xdd"
_AUTHENTICATION = 51
_IDENTIFICATION = 0x4E57
_SOLICITATION, _REPORT = 135, 143
_TCP_HEADER, _LEAST_WORDS, _ROOMY = 20, 5, 15
_OPTION, _UNKNOWN = 4, 2
"""Bytes of each TCP option that the model knows, and before the content of one that it does not."""
_EXPERIMENT = 253
_MOST = 1400
"""Bytes of a transport part: more need not fit any line."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a frame holds that the model does not see."""

    number: int
    """Below 2**32, by which it is known again."""
    sequence: int = SEQUENCE
    acknowledged: int = 0
    quoted: bytes = b""
    """Of an ICMP error: the packet that it is about."""
    spoiled: bool = False
    """With a wrong checksum of the transport."""


def frame_of(packet: Packet, macs: bytes, content: Content) -> bytes:
    """Return a packet as a frame.

    Args:
        packet: Every field that can be seen on a wire counts.
        macs: Destination and source MAC address, packed.
        content: The rest.

    """
    size = packet.family.bits // 8
    source, destination = (packet.number(each).to_bytes(size, "big") for each in (fields.SADDR, fields.DADDR))
    upper = _upper(packet, source + destination, content)
    if packet.family is Family.IPV4:
        return macs + _IPV4 + _header4(packet, source + destination, len(upper)) + upper
    chain = _extensions(packet)
    return macs + _IPV6 + _header6(packet, source + destination, len(chain) + len(upper)) + chain + upper


def quotation(packet: Packet, sequence: int) -> bytes:
    """Return the part of a TCP segment that an ICMP error about it quotes."""
    size = packet.family.bits // 8
    ends = b"".join(packet.number(each).to_bytes(size, "big") for each in (fields.SADDR, fields.DADDR))
    ports = struct.pack("!HHI", packet.number(fields.SPORT), packet.number(fields.DPORT), sequence)
    plain = packet.changed({fields.TTL: 60})
    header = _header4(plain, ends, 20) if packet.family is Family.IPV4 else _header6(plain, ends, 20)
    return header + ports + struct.pack("!IBBHHH", 0, 0x50, fields.ACK, 65535, 0, 0)


def _header4(packet: Packet, ends: bytes, rest: int) -> bytes:
    words = packet.number(fields.HEADER_LENGTH) or 5
    head = bytearray(
        struct.pack(
            "!BBHHHBBH",
            0x40 | words,
            packet.number(fields.DSCP) << 2 | packet.number(fields.ECN),
            words * 4 + rest,
            _IDENTIFICATION,
            packet.number(fields.FRAG_OFF),
            packet.number(fields.TTL),
            packet.number(fields.PROTOCOL),
            0,
        )
        + ends
        + b"\x01" * (words * 4 - 20)  # options that do nothing
    )
    struct.pack_into("!H", head, 10, checksum(bytes(head)))
    return bytes(head)


def _header6(packet: Packet, ends: bytes, rest: int) -> bytes:
    first = 6 << 28 | packet.number(fields.DSCP) << 22 | packet.number(fields.ECN) << 20
    following = packet.number(fields.NEXT_HEADER)
    return struct.pack("!IHBB", first, rest, following, packet.number(fields.TTL)) + ends


def _extensions(packet: Packet) -> bytes:
    """Return the extension headers, the one that the fixed header announces first."""
    begin = packet.number(fields.NEXT_HEADER)
    named = {number: name for number, name in fields.WALKED.items() if name is not None}
    present = [number for number, name in named.items() if packet.number(fields.EXTENSIONS[name])]
    if begin == _AUTHENTICATION:
        present.append(begin)
    order = [each for each in present if each == begin] + [each for each in present if each != begin]
    found = b""
    for place, number in enumerate(order):
        following = order[place + 1] if place + 1 < len(order) else packet.number(fields.PROTOCOL)
        if fields.WALKED[number] == "frag":
            offset = 2 << 3 if packet.number(fields.LATER_FRAGMENT) else 1
            found += struct.pack("!BBHI", following, 0, offset, 7)
        elif fields.WALKED[number] == "rt":
            found += struct.pack("!BBBBI", following, 0, 4, 0, 0)
        elif number == _AUTHENTICATION:
            found += struct.pack("!BBHIII", following, 2, 0, 1, 1, 0)  # RFC 4302
        else:
            found += struct.pack("!BBBB4x", following, 0, 1, 4)  # PadN over the rest
    return found


def _upper(packet: Packet, ends: bytes, content: Content) -> bytes:
    protocol = packet.number(fields.PROTOCOL)
    tail = TAIL.pack(MAGIC, content.number)
    ports = struct.pack("!HH", packet.number(fields.SPORT), packet.number(fields.DPORT))
    control = fields.ICMP if packet.family is Family.IPV4 else fields.ICMPV6
    if protocol == fields.TCP:
        flags, words = packet.number(fields.TCP_FLAGS), packet.number(fields.DATA_OFFSET)
        head = struct.pack("!IIBBHHH", content.sequence, content.acknowledged, words << 4, flags, 65535, 0, 0)
        room = packet.number(fields.LENGTH) - network_length(packet) - _TCP_HEADER
        rest = _options(packet, min(room, max(0, words * 4 - _TCP_HEADER))).ljust(room, b"\0")
        upper, place = ports + head + rest[: -len(tail)] + tail, 16
    elif protocol == fields.UDP:
        upper, place = ports + struct.pack("!HH", 8 + len(tail), 0) + tail, 6
    elif protocol == control:
        body = content.quoted or _message(packet, ends)
        upper, place = ports[:2] + b"\0\0" + body + tail, 2
    else:
        return ports + b"\0\0\0\0" + tail
    pseudo = ends + struct.pack("!II", len(upper), protocol)
    covered = upper if protocol == fields.ICMP else pseudo + upper
    value = checksum(covered) or 0xFFFF
    if content.spoiled:
        value ^= 0x5555
    return upper[:place] + struct.pack("!H", value) + upper[place + 2 :]


def network_length(packet: Packet) -> int:
    """Return the bytes before the transport header."""
    if packet.family is Family.IPV4:
        return 4 * (packet.number(fields.HEADER_LENGTH) or 5)
    return 40 + len(_extensions(packet))


def segment(packet: Packet, *, data: bool) -> Packet:
    """Return a TCP packet whose number is its data, or stands in an option behind which it ends."""
    words = 5 if data else fields.BARE_OFFSET
    length = network_length(packet) + 4 * words + (TAIL.size if data else 0)
    return packet.changed(
        {fields.DATA_OFFSET: words, fields.LENGTH: length, **dict.fromkeys(fields.TCP_OPTIONS.values(), 0)}
    )


def sent(packet: Packet) -> Packet:
    """Return a packet with the lengths that its frame has: those it asks for, where they leave room for its number."""
    if packet[fields.PROTOCOL] != fields.TCP:
        return packet.changed({fields.LENGTH: network_length(packet) + 8 + TAIL.size})
    words, room = packet.number(fields.DATA_OFFSET), packet.number(fields.LENGTH) - network_length(packet)
    asked = sum(packet.number(each) * _OPTION for each in fields.TCP_OPTIONS.values())
    taken = 4 * words if words < _LEAST_WORDS or room - 4 * words >= TAIL.size else _TCP_HEADER + asked + _UNKNOWN
    fits = not asked or asked + _TCP_HEADER <= 4 * words <= room
    if fits and max(taken, _TCP_HEADER) + TAIL.size <= room <= _MOST:
        return packet
    options = {each: packet.number(each) for each in fields.TCP_OPTIONS.values()}
    wider = {fields.DATA_OFFSET: _ROOMY, fields.LENGTH: network_length(packet) + 4 * _ROOMY}
    return packet.changed({**wider, **options}) if asked else segment(packet, data=False)


def _options(packet: Packet, room: int) -> bytes:
    """Return TCP options that fill so many bytes: those that the model knows, then one that nobody does."""
    known = [struct.pack("!BBH", kind, _OPTION, 0xF989) for kind, each in fields.TCP_OPTIONS.items() if packet[each]]
    found = b"".join(known)
    left = room - len(found)
    return found + (bytes([_EXPERIMENT, left]).ljust(left, b"\0") if left >= _UNKNOWN else b"\1" * max(0, left))


def _message(packet: Packet, ends: bytes) -> bytes:
    """Return what follows type, code and checksum of an ICMP message."""
    kind = packet.number(fields.SPORT) >> 8
    if packet.family is Family.IPV6 and kind == _SOLICITATION:
        return b"\0\0\0\0" + ends[16:]  # a question for the address that it is sent to
    if packet.family is Family.IPV6 and kind == _REPORT:
        return b"\0\0\0\0"
    if kind in {3, 4, 5, 11, 12} if packet.family is Family.IPV4 else kind < 128:
        nobody = dict.fromkeys((fields.SADDR, fields.DADDR, fields.SPORT, fields.DPORT), 9)
        plain = {fields.PROTOCOL: fields.TCP, fields.NEXT_HEADER: fields.TCP, fields.HEADER_LENGTH: 5}
        return b"\0\0\x05\x14" + quotation(Packet(packet.family, {**nobody, **plain}), 1)
    return b"\0\0\0\1"
