"""Packets of a capture as questions; connection tracking is followed as far as the capture shows it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, tzinfo
from ipaddress import ip_address
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from scapy.error import Scapy_Exception
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting
from scapy.utils import PcapReader

from netpolicy.inputs import open_regular
from netpolicy.proof import fields
from netpolicy.proof.evaluate import Packet
from netpolicy.proof.fields import ORIGINAL, REPLY, STATES, Family, Field, State
from netpolicy.proof.question import Question, QuestionError, clock

_NEW_BITS = fields.FIN | fields.SYN | fields.RST | fields.ACK
_EXTENSIONS = {"hbh": IPv6ExtHdrHopByHop, "rt": IPv6ExtHdrRouting, "frag": IPv6ExtHdrFragment}
_BYTES = 4
_HEADER_WORDS = 5
_NAMES = {34: "TFO"}
"""Scapy's, of TCP options."""
_MOST_FRAMES = 20_000
"""That are looked at."""
_MOST_BYTES = 1 << 20
"""Of a frame or block: the largest frame that a capture holds has 256 KiB (MAXIMUM_SNAPLEN of libpcap)."""

Ends = tuple[int, int, int, int, int]
"""Protocol, source, destination, and the two ports."""


def captured(path: Path, count: int, zone: tzinfo) -> Iterator[Question]:
    """Yield the first packets of a capture that are IP.

    Args:
        path: pcap or pcapng.
        count: So many at most.
        zone: Times are told in it.

    Raises:
        QuestionError: It is no capture, or holds no packet of IP.

    """
    known: set[Ends] = set()
    given = 0
    try:
        descriptor = open_regular(path)
        with os.fdopen(descriptor, "rb") as stream, PcapReader(_Bounded(stream)) as reader:
            for frame in islice(reader, _MOST_FRAMES):
                found = _question(frame, known, zone)
                if found is not None:
                    yield found
                    given += 1
                if given >= count:
                    return
    except (Scapy_Exception, OSError) as refused:
        raise QuestionError(f"{path} cannot be read as a capture: {refused}") from refused
    if not given:
        raise QuestionError(f"{path} holds no packet of IP among its first {_MOST_FRAMES} frames")


class _Bounded:
    """A stream that gives no more at once than a frame or a block may have, whatever a capture says of its length."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes, or what is left.

        Raises:
            Scapy_Exception: They are too many.

        """
        if not 0 <= size <= _MOST_BYTES:
            raise Scapy_Exception(f"a frame or block of {size} bytes; expected at most {_MOST_BYTES}")
        return self._stream.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _question(frame: Any, known: set[Ends], zone: tzinfo) -> Question | None:
    packet = frame.getlayer(IP) or frame.getlayer(IPv6)
    if packet is None:
        return None
    values = _values(packet)
    source, destination = ip_address(packet.src), ip_address(packet.dst)
    values |= {fields.SADDR: int(source), fields.DADDR: int(destination)}
    family = Family.IPV4 if source.version == 4 else Family.IPV6
    state, direction = _tracked(Packet(family, values), known)
    at = datetime.fromtimestamp(float(frame.time), zone)
    values |= {fields.STATE: STATES.index(state), fields.DIRECTION: direction, **clock(at)}
    return Question(Packet(family, values), source, destination, at)


def _values(packet: Any) -> dict[Field, int | str]:
    """Return the header's fields."""
    values: dict[Field, int | str]
    if isinstance(packet, IP):
        protocol = int(packet.proto)
        values = {
            fields.TTL: int(packet.ttl),
            fields.HEADER_LENGTH: int(packet.ihl or 5),
            fields.FRAG_OFF: int(packet.flags) << 13 | int(packet.frag),
            fields.DSCP: int(packet.tos) >> 2,
            fields.ECN: int(packet.tos) & 3,
            fields.LENGTH: int(packet.len or len(packet)),
        }
    else:
        values = {fields.TTL: int(packet.hlim), fields.NEXT_HEADER: int(packet.nh), fields.LENGTH: len(packet)}
        protocol = int(packet.nh)
        for name, kind in _EXTENSIONS.items():
            header = packet.getlayer(kind)
            if header is not None:
                values[fields.EXTENSIONS[name]] = 1
                protocol = int(header.nh)
            if header is not None and kind is IPv6ExtHdrFragment:
                values[fields.LATER_FRAGMENT] = int(bool(header.offset))
                values[fields.MORE_FRAGMENTS] = int(header.m)
                values[fields.ODD_FRAGMENT] = int(bool(header.m) and len(header.payload) % 8 != 0)
    values[fields.PROTOCOL] = protocol
    for kind in (TCP, UDP):
        layer = packet.getlayer(kind)
        if layer is not None:
            values |= {fields.SPORT: int(layer.sport), fields.DPORT: int(layer.dport)}
    if packet.haslayer(TCP):
        kinds = {kind for kind, _ in packet[TCP].options}
        values |= {
            fields.TCP_FLAGS: int(packet[TCP].flags) & 0xFF,
            fields.DATA_OFFSET: int(packet[TCP].dataofs or _HEADER_WORDS),
            **{field: int(bool({kind, _NAMES.get(kind)} & kinds)) for kind, field in fields.TCP_OPTIONS.items()},
        }
    elif protocol in {fields.ICMP, fields.ICMPV6}:
        body = bytes(packet[ICMP]) if packet.haslayer(ICMP) else bytes(packet.payload)
        if len(body) >= _BYTES:
            values[fields.SPORT] = int.from_bytes(body[:2])
            values[fields.DPORT] = int.from_bytes(body[2:4])
    return values


def _tracked(packet: Packet, known: set[Ends]) -> tuple[State, int]:
    """Return what connection tracking makes of a packet after those before it (``nf_conntrack_tcp_loose=0``)."""
    protocol = packet.number(fields.PROTOCOL)
    source, destination = packet.number(fields.SADDR), packet.number(fields.DADDR)
    sport, dport = packet.number(fields.SPORT), packet.number(fields.DPORT)
    if protocol in {fields.ICMP, fields.ICMPV6}:
        return State.NEW, ORIGINAL
    there = (protocol, source, destination, sport, dport)
    if (protocol, destination, source, dport, sport) in known:
        return State.ESTABLISHED, REPLY
    begins = protocol != fields.TCP or packet.number(fields.TCP_FLAGS) & _NEW_BITS == fields.SYN
    if there in known and not (protocol == fields.TCP and begins):
        return State.ESTABLISHED, ORIGINAL
    if not begins:
        return State.INVALID, ORIGINAL
    known.add(there)
    return State.NEW, ORIGINAL
