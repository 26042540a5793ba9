"""A connection that is permitted and open, and what can be forged into it."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Self

from scapy.utils import checksum

from conformance.inspection.ports import bound
from conformance.lab import Namespace
from netpolicy.topology.model import Address

_PSH_ACK = 0x18
_NUMBERS = 1 << 32
_TCP_REPAIR, _TCP_REPAIR_QUEUE, _TCP_QUEUE_SEQ = 19, 20, 21
_RECEIVED, _SENT, _AS_BEFORE = 1, 2, -1
"""Of tcp(7)'s repair mode, which tells sequence numbers; the connection goes on as before."""


@dataclass(slots=True)
class Conversation:
    """Both ends of one connection, held by kernels."""

    client: socket.socket
    server: socket.socket

    @property
    def source(self) -> tuple[Address, int]:
        """The client's address and port."""
        return _end(self.client.getsockname())

    @property
    def destination(self) -> tuple[Address, int]:
        """The server's."""
        return _end(self.client.getpeername())

    def segment(self, payload: bytes, *, answer: bool = False, ahead: int = 0, late: int = 0) -> bytes:
        """Return an IP packet with the next segment that one end would send (RFC 9293), in order and acknowledging.

        Args:
            payload: What it says.
            answer: Whether the server sends it.
            ahead: Bytes that are left out before it; as many before it as are negative.
            late: Bytes that it does not acknowledge, though they were.

        """
        ends, speaker = (self.source, self.destination), self.client
        if answer:
            ends, speaker = (self.destination, self.source), self.server
        sequence, acknowledged = _numbers(speaker)
        (source, source_port), (destination, port) = ends
        numbers = (sequence + ahead) % _NUMBERS, (acknowledged - late) % _NUMBERS
        return tcp_packet(source, destination, (source_port, port), numbers, payload)

    def read(self, *, answer: bool = False) -> bytes:
        """Return what an application reads at the far end, as far as it has come."""
        found = bytearray()
        reader = self.client if answer else self.server
        reader.setblocking(False)
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while part := reader.recv(65536):
                found += part
        return bytes(found)

    def close(self) -> None:
        """End it at once (RST)."""
        for each in (self.client, self.server):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.close()


@dataclass(slots=True)
class Meeting:
    """A server that listens, and a place from which clients come."""

    here: Namespace
    source: Address
    listening: socket.socket
    target: tuple[str, int]

    @classmethod
    @contextmanager
    def held(
        cls, here: Namespace, source: Address, there: Namespace, destination: Address, port: int
    ) -> Iterator[Self]:
        """Listen while inside."""
        family = socket.AF_INET if destination.version == 4 else socket.AF_INET6
        with there.call(lambda: socket.create_server((str(destination), port), family=family, backlog=256)) as found:
            found.settimeout(5.0)
            yield cls(here, source, found, (str(destination), port))

    def open(self, stack: ExitStack, seconds: float = 5.0) -> Conversation:
        """Open a connection through all firewalls.

        Raises:
            OSError: It does not come to be.

        """
        client = bound(self.here, self.source)
        client.settimeout(seconds)
        try:
            client.connect(self.target)
            server, _ = self.listening.accept()
        except OSError:
            client.close()
            raise
        found = Conversation(client, server)
        stack.callback(found.close)
        return found


def tcp_packet(  # noqa: PLR0917 - the fields of one header
    source: Address,
    destination: Address,
    ports: tuple[int, int],
    numbers: tuple[int, int],
    payload: bytes,
    flags: int = _PSH_ACK,
) -> bytes:
    """Return an IP packet with one TCP segment and right checksums.

    Args:
        source: Address.
        destination: Address, of the same family.
        ports: Source's and destination's.
        numbers: Sequence and acknowledgement number.
        payload: What it says.
        flags: Of RFC 9293, 3.1.

    """
    header = struct.pack("!HHIIBBHHH", *ports, *numbers, 5 << 4, flags, 0xFFFF, 0, 0)
    pseudo = source.packed + destination.packed + struct.pack("!II", len(header) + len(payload), 6)
    segment = bytearray(header + payload)
    struct.pack_into("!H", segment, 16, checksum(pseudo + bytes(segment)))
    if source.version == 6:
        return struct.pack("!IHBB", 6 << 28, len(segment), 6, 64) + source.packed + destination.packed + segment
    ip = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0x4E50, 0x4000, 64, 6, 0))
    ip += source.packed + destination.packed
    struct.pack_into("!H", ip, 10, checksum(bytes(ip)))
    return bytes(ip + segment)


def _end(name: tuple[str, int]) -> tuple[Address, int]:
    return ip_address(name[0]), int(name[1])


def _numbers(speaker: socket.socket) -> tuple[int, int]:
    """Return the number of the next byte that an end sends, and of the next that it awaits."""
    speaker.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
    try:
        found = []
        for queue in (_SENT, _RECEIVED):
            speaker.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR_QUEUE, queue)
            found.append(int(speaker.getsockopt(socket.IPPROTO_TCP, _TCP_QUEUE_SEQ)) & 0xFFFFFFFF)
    finally:
        speaker.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _AS_BEFORE)
    return found[0], found[1]
