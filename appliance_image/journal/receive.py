"""The collector: takes the journals of many hosts, holds each against its chain as it comes, and stores it.

A client's journal is a directory with the name in its certificate. It is a journal itself: `verify` reads it.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import BoundedSemaphore, Event, Thread

from appliance_image.journal.channel import Stream, client_name
from appliance_image.journal.errors import JournalError
from appliance_image.journal.record import MalformedError
from appliance_image.journal.replica import Replica
from appliance_image.journal.syslog import read_frame, record_of

_MOST_CLIENTS = 64
_HANDSHAKE, _IDLE = 10.0, 900.0
"""Seconds."""
_AT_ONCE = 1 << 16


class Receiver:
    """Accepts connections and serves each in a thread."""

    def __init__(
        self,
        directory: Path,
        listener: socket.socket,
        context: ssl.SSLContext,
        *,
        keys: Mapping[str, bytes] | None = None,
        say: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._directory = directory
        self._listener = listener
        self._context = context
        self._keys = keys or {}
        self._say = say
        self._free = BoundedSemaphore(_MOST_CLIENTS)
        self._stop = Event()

    def serve(self) -> None:
        """Serve until `stop`."""
        self._listener.settimeout(0.2)
        while not self._stop.is_set():
            try:
                plain, peer = self._listener.accept()
            except TimeoutError:
                continue
            if not self._free.acquire(blocking=False):
                plain.close()
                self._say(f"{peer[0]}: more than {_MOST_CLIENTS} connections")
                continue
            Thread(target=self._connection, args=(plain, peer[0]), daemon=True).start()

    def stop(self) -> None:
        """Accept no more; connections end by themselves."""
        self._stop.set()

    def _connection(self, plain: socket.socket, peer: str) -> None:
        try:
            plain.settimeout(_HANDSHAKE)
            with plain, self._context.wrap_socket(plain, server_side=True) as secured:
                secured.settimeout(_IDLE)
                name = client_name(secured)
                with secured.makefile("rwb") as stream:
                    self._client(name, stream)
                with suppress(OSError):
                    secured.unwrap()
        except (OSError, EOFError, JournalError, MalformedError) as failed:
            self._say(f"{peer}: {failed or 'the connection ended within a message'}")
        finally:
            self._free.release()

    def _client(self, name: str, stream: Stream) -> None:
        try:
            replica = Replica(self._directory / name, self._keys.get(name))
            head = replica.head()
            _answer(stream, f"HEAD {head if head.seq else 0}")
            while (received := read_frame(stream)) is not None:
                record = record_of(received)
                replica.take(record)
                _answer(stream, f"ACK {record.seq}")
        except (JournalError, MalformedError) as refused:
            with suppress(OSError):
                _answer(stream, f"NAK {refused}")
                while stream.read(_AT_ONCE):  # closing with something unread would take the answer with it
                    pass
            raise JournalError(f"{name}: {refused}") from None


def _answer(stream: Stream, text: str) -> None:
    stream.write(text.encode("utf-8", "backslashreplace")[:1000] + b"\n")
    stream.flush()
