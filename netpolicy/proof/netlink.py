"""Questions to the kernel over netlink, and its answers as bytes: the standard library, nothing else.

An answer is a sequence of attributes (RFC 3549 section 2.3.2), each with a length of its own. Every length is held
against what is there before it is believed: an answer that does not fit into itself is an error, never read halfway.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import Self

NETLINK_ROUTE, NETLINK_XFRM, NETLINK_NETFILTER = 0, 6, 12
"""Protocols (linux/netlink.h)."""
DUMP = 0x300
_REQUEST = 0x1
_ERROR, _DONE = 2, 3
_INTERRUPTED = 0x10
_SECONDS = 20.0
_RECEIVED = 1 << 17
_MOST_BYTES = 1 << 28
"""Of all answers to one question."""
_SO_RCVBUFFORCE = 33
_RECEIVE_BUFFER = 1 << 23

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_TYPE_MASK = 0x3FFF
"""Without the flags for nested ones and for the order of bytes."""


class MalformedError(ValueError):
    """An answer does not fit into itself."""


class ChangedError(OSError):
    """What was asked about has changed while the kernel told it."""


class Netlink:
    """A socket in the network namespace in which it was made; one question at a time."""

    def __init__(self, protocol: int) -> None:
        self._sequence = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        try:
            self._socket.bind((0, 0))
            self._socket.settimeout(_SECONDS)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, kind: int, flags: int, content: bytes) -> Iterator[tuple[int, bytes]]:
        """Send one question and yield the type and the content of every message that answers it.

        Raises:
            ChangedError: It has changed meanwhile; the answer is none.
            MalformedError: An answer cannot be read.
            OSError: The kernel answers with an error, or not at all.

        """
        self._sequence += 1
        length = _HEADER.size + len(content)
        self._socket.send(_HEADER.pack(length, kind, _REQUEST | flags, self._sequence, 0) + content)
        received = 0
        while True:
            data = self._socket.recv(_RECEIVED)
            received += len(data)
            if received > _MOST_BYTES:
                raise MalformedError("the kernel's answer is too long")
            for answer, marks, sequence, body in _messages(data):
                if sequence != self._sequence:
                    continue
                if marks & _INTERRUPTED:
                    raise ChangedError("it has changed while it was read")
                if answer in {_ERROR, _DONE}:
                    error = struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
                    if error != 0:
                        raise OSError(-error, os.strerror(-error))
                    return
                yield answer, body
                if not flags & DUMP:
                    return


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield type, flags, sequence number and content of each message."""
    offset = 0
    while offset < len(data):
        if len(data) - offset < _HEADER.size:
            raise MalformedError("a message ends within its header")
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if not _HEADER.size <= length <= len(data) - offset:
            raise MalformedError(f"a message of {length} bytes where {len(data) - offset} are")
        yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
        offset += aligned(length)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the content of each attribute.

    Raises:
        MalformedError: One does not fit.

    """
    offset = 0
    while offset < len(data):
        if len(data) - offset < _ATTRIBUTE.size:
            raise MalformedError("an attribute ends within its header")
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if not _ATTRIBUTE.size <= length <= len(data) - offset:
            raise MalformedError(f"an attribute of {length} bytes where {len(data) - offset} are")
        yield kind & _TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += aligned(length)


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(aligned(length) - length)


def number(value: bytes) -> int:
    """Return a number in the order of the network, as netfilter has them."""
    return int.from_bytes(value, "big")


def text(value: bytes) -> str:
    """Return a name that ends with a zero byte.

    Raises:
        MalformedError: It is no text, or goes on behind its end.

    """
    name, end, rest = value.partition(b"\0")
    if not end or rest.strip(b"\0"):
        raise MalformedError(f"no name: {value[:64]!r}")
    try:
        return name.decode()
    except UnicodeDecodeError as wrong:
        raise MalformedError(f"no name: {value[:64]!r}") from wrong


def aligned(length: int) -> int:
    """Return a length that is a multiple of 4 (NLMSG_ALIGN, NLA_ALIGN)."""
    return length + 3 & ~3
