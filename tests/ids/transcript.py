"""Conversations as packets: real TLS between real endpoints in memory, any other bytes, in any segmentation."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

_MSS = 1400
_CLIENT_MAC, _SERVER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"


@dataclass(frozen=True, slots=True)
class Turn:
    """Bytes that one side sends before the other one speaks."""

    from_client: bool
    data: bytes


@dataclass(slots=True)
class Side:
    """One end of a TLS session in memory."""

    context: ssl.SSLContext
    server: bool
    name: str | None = None
    says: list[bytes] = field(default_factory=list)
    """Application data that it sends once its handshake is done."""
    failed: ssl.SSLError | None = None
    heard: bytes = b""


def converse(client: Side, server: Side, *, rounds: int = 12) -> list[Turn]:
    """Return what two TLS ends send each other until both have nothing more to say, or one has failed."""
    pipes = {side: (ssl.MemoryBIO(), ssl.MemoryBIO()) for side in ("client", "server")}
    ends = {
        "client": client.context.wrap_bio(*pipes["client"], server_side=False, server_hostname=client.name),
        "server": server.context.wrap_bio(*pipes["server"], server_side=True),
    }
    sides = {"client": client, "server": server}
    turns: list[Turn] = []
    for _ in range(rounds):
        for who, other in (("client", "server"), ("server", "client")):
            _advance(ends[who], sides[who])
            sent = pipes[who][1].read()
            if sent:
                turns.append(Turn(who == "client", sent))
                pipes[other][0].write(sent)
    return turns


def _advance(end: ssl.SSLObject, side: Side) -> None:
    if side.failed is not None:
        return
    try:
        end.do_handshake()
        while side.says:
            end.write(side.says.pop(0))
        while True:
            side.heard += end.read(65536)
    except ssl.SSLWantReadError:
        return
    except ssl.SSLError as failed:
        side.failed = failed


def split(data: bytes, at: Sequence[int]) -> list[bytes]:
    """Return `data` in parts that end at the offsets `at`."""
    cuts = [0, *(each for each in at if 0 < each < len(data)), len(data)]
    return [data[begin:end] for begin, end in pairwise(cuts)]


@dataclass(frozen=True, slots=True)
class Ends:
    """The addresses and ports of a TCP connection."""

    client: str
    server: str
    client_port: int
    server_port: int

    def packet(self, *, from_client: bool, **tcp: object) -> Packet:
        """Return a frame of this connection."""
        ends = (self.client, self.server) if from_client else (self.server, self.client)
        ports = (self.client_port, self.server_port) if from_client else (self.server_port, self.client_port)
        macs = (_CLIENT_MAC, _SERVER_MAC) if from_client else (_SERVER_MAC, _CLIENT_MAC)
        network = (IPv6 if ":" in self.client else IP)(src=ends[0], dst=ends[1])
        segment = TCP(sport=ports[0], dport=ports[1], **{"window": 0xFFFF, **tcp})
        return Ether(src=macs[0], dst=macs[1]) / network / segment


def tcp_session(
    ends: Ends, turns: Iterable[Turn], *, cuts: Sequence[int] = (), segment_size: int = _MSS
) -> Iterator[Packet]:
    """Yield a whole connection: handshake, every turn acknowledged by the other side, FIN both ways.

    Args:
        ends: Whose.
        turns: What is said.
        cuts: Offsets at which every turn is split into segments, beside the usual size.
        segment_size: Most bytes of a segment; large ones are as an interface with offloads hands them over.

    """
    sequence = {True: 1000, False: 5000}
    yield ends.packet(from_client=True, flags="S", seq=sequence[True])
    sequence[True] += 1
    yield ends.packet(from_client=False, flags="SA", seq=sequence[False], ack=sequence[True])
    sequence[False] += 1
    yield ends.packet(from_client=True, flags="A", seq=sequence[True], ack=sequence[False])
    for turn in turns:
        me = turn.from_client
        for part in split(turn.data, cuts):
            for begin in range(0, len(part), segment_size):
                segment = part[begin : begin + segment_size]
                yield ends.packet(from_client=me, flags="PA", seq=sequence[me], ack=sequence[not me]) / Raw(segment)
                sequence[me] += len(segment)
                yield ends.packet(from_client=not me, flags="A", seq=sequence[not me], ack=sequence[me])
    for me in (True, False):
        yield ends.packet(from_client=me, flags="FA", seq=sequence[me], ack=sequence[not me])
        sequence[me] += 1
    yield ends.packet(from_client=True, flags="A", seq=sequence[True], ack=sequence[False])


def write_pcap(path: Path, packets: Iterable[Packet], *, begin: float = 1_700_000_000.0, gap: float = 0.001) -> None:
    """Write packets with times of their own, so that equal packets give equal bytes."""
    timed = []
    for number, packet in enumerate(packets):
        packet.time = begin + number * gap
        timed.append(packet)
    wrpcap(str(path), timed)
