"""TLS sessions with their records changed, as no honest end sends them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from scapy.layers.inet import IP, TCP
from scapy.packet import Packet, Raw

from tests.ids.transcript import Turn, split

_HEADER = 5
_RANDOM = 11
"""Where the random bytes of a ClientHello begin, 32 of them."""
_HANDSHAKE, _CERTIFICATE = 22, 11


def without_certificate(turns: Iterable[Turn]) -> Iterator[Turn]:
    """Yield a session whose server leaves its certificate out."""
    for turn in turns:
        kept = [
            record
            for record in records(turn.data)
            if turn.from_client or (record[0], record[_HEADER]) != (_HANDSHAKE, _CERTIFICATE)
        ]
        yield Turn(turn.from_client, b"".join(kept))


def split_records(turns: Iterable[Turn], kind: int, at: Sequence[int]) -> Iterator[Turn]:
    """Yield a session whose client spreads its handshake messages of a kind over several records."""
    for turn in turns:
        data = bytearray()
        for record in records(turn.data):
            if turn.from_client and (record[0], record[_HEADER]) == (_HANDSHAKE, kind):
                for part in split(record[_HEADER:], at):
                    data += record[:3] + len(part).to_bytes(2, "big") + part
            else:
                data += record
        yield Turn(turn.from_client, bytes(data))


def as_if_offered(turns: Iterable[Turn], protocol: str) -> Iterator[Turn]:
    """Yield a session whose ClientHello has the bytes that would offer a protocol among its random ones."""
    name = protocol.encode()
    extension = bytes((0, 16, 0, len(name) + 3, 0, len(name) + 1, len(name))) + name
    for number, turn in enumerate(turns):
        data = bytearray(turn.data)
        if number == 0:
            data[_RANDOM : _RANDOM + len(extension)] = extension
        yield Turn(turn.from_client, bytes(data))


def late(packets: Sequence[Packet], count: int) -> list[Packet]:
    """Return the packets of a session whose client sends the first bytes of its second flight after all the rest."""
    said = [packet for packet in packets if packet.haslayer(Raw) and packet[TCP].sport > packet[TCP].dport]
    rest, first = said[1], said[1].copy()
    data = bytes(rest[Raw].load)
    first[Raw].load, rest[Raw].load = data[:count], data[count:]
    rest[TCP].seq += count
    for packet in (first, rest):
        del packet[IP].chksum, packet[IP].len, packet[TCP].chksum
    before = packets[: packets.index(rest)]
    return [*before, *said[1:], first]


def records(data: bytes) -> Iterator[bytes]:
    """Yield the records of what one side says."""
    while data:
        end = _HEADER + int.from_bytes(data[3:_HEADER], "big")
        yield data[:end]
        data = data[end:]
