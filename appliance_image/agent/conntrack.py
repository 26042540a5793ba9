"""Connections that the kernel tracks: listed and ended over nfnetlink (linux/netfilter/nfnetlink_conntrack.h)."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_NETLINK_NETFILTER = 12
_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE, _DUMP_INTERRUPTED = 2, 3, 0x10
_HEADER, _NFGENMSG, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("!BBH"), struct.Struct("=HH")
_TYPE_MASK = 0x3FFF
_TUPLE_ORIGINAL, _ZONE = 1, 18
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_SOURCES, _DESTINATIONS = (1, 3), (2, 4)
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_SECONDS = 10.0
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Connection:
    """A tracked connection, as its first packet was."""

    version: int
    """4 or 6."""
    source: int
    destination: int
    protocol: int
    source_port: int
    """0 where the protocol has none."""
    destination_port: int
    original: bytes
    """The kernel's own words for it, by which it is ended."""
    zone: bytes

    @property
    def ends(self) -> tuple[int, int]:
        """Both addresses, as numbers."""
        return self.source, self.destination


class Tracking:
    """The connection tracking of the network namespace in which it is made."""

    def __init__(self) -> None:
        """Open it.

        Raises:
            OSError: This kernel has none.

        """
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._socket.settimeout(_SECONDS)
        self._sequence = 0

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def connections(self) -> list[Connection]:
        """Return all connections.

        Raises:
            OSError: The kernel does not tell.

        """
        for _ in range(_TRIES):
            found: dict[bytes, Connection] = {}
            interrupted = False
            for flags, family, content in self._ask(_GET, _DUMP, socket.AF_UNSPEC, b""):
                interrupted |= bool(flags & _DUMP_INTERRUPTED)
                connection = _connection(family, content)
                if connection is not None:
                    found[connection.original] = connection
            if not interrupted:
                break
        return list(found.values())

    def end(self, connection: Connection) -> bool:
        """Forget a connection; return whether it was still there.

        Raises:
            OSError: The kernel refuses.

        """
        family = socket.AF_INET if connection.version == 4 else socket.AF_INET6
        content = _attribute(_TUPLE_ORIGINAL | 0x8000, connection.original) + connection.zone
        try:
            for _ in self._ask(_DELETE, _ACK, family, content):
                pass
        except FileNotFoundError:
            return False
        return True

    def _ask(self, kind: int, flags: int, family: int, content: bytes) -> Iterator[tuple[int, int, bytes]]:
        self._sequence += 1
        body = _NFGENMSG.pack(family, 0, 0) + content
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, self._sequence, 0) + body)
        while True:
            data = self._socket.recv(1 << 18)
            at = 0
            while at + _HEADER.size <= len(data):
                length, answer, marks, sequence, _ = _HEADER.unpack_from(data, at)
                body = data[at + _HEADER.size : at + length]
                at += (length + 3) & ~3
                if sequence != self._sequence:
                    continue
                if answer in {_ERROR, _DONE}:
                    number = -struct.unpack_from("=i", body)[0] if body else 0
                    if number:
                        raise OSError(number, os.strerror(number))
                    return
                yield marks, body[0], body[_NFGENMSG.size :]


def _connection(family: int, content: bytes) -> Connection | None:
    attributes = dict(_attributes(content))
    original = attributes.get(_TUPLE_ORIGINAL)
    if original is None or family not in {socket.AF_INET, socket.AF_INET6}:
        return None
    ends = dict(_attributes(dict(_attributes(original)).get(_TUPLE_IP, b"")))
    carried = dict(_attributes(dict(_attributes(original)).get(_TUPLE_PROTOCOL, b"")))
    version = 4 if family == socket.AF_INET else 6
    place = 0 if version == 4 else 1
    zone = attributes.get(_ZONE)
    return Connection(
        version,
        int.from_bytes(ends.get(_SOURCES[place], b"")),
        int.from_bytes(ends.get(_DESTINATIONS[place], b"")),
        int.from_bytes(carried.get(_NUMBER, b"")),
        int.from_bytes(carried.get(_SOURCE_PORT, b"")),
        int.from_bytes(carried.get(_DESTINATION_PORT, b"")),
        original,
        b"" if zone is None else _attribute(_ZONE, zone),
    )


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def _attribute(kind: int, value: bytes) -> bytes:
    head = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind)
    return head + value + bytes(-len(value) % 4)
