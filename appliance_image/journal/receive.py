"""The collector: takes the journals of many hosts, holds each against its chain as it comes, and stores it.

A client's journal is a directory with the name in its certificate. It is a journal itself: `verify` reads it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import BoundedSemaphore, Event, Thread

from appliance_image.journal.channel import Credentials, Stream, client_name
from appliance_image.journal.errors import JournalError
from appliance_image.journal.record import MalformedError
from appliance_image.journal.replica import Replica
from appliance_image.journal.syslog import read_frame, record_of

_MOST_CLIENTS = 64
_HANDSHAKE, _IDLE = 10.0, 900.0
"""Seconds."""
_LONGEST = 3600.0
"""Seconds that a connection may last: a certificate that is revoked, or lists that are over, are seen at the next."""
_AT_ONCE = 1 << 16


class Receiver:
    """Accepts connections and serves each in a thread."""

    def __init__(
        self,
        directory: Path,
        listener: socket.socket,
        credentials: Credentials,
        *,
        keys: Mapping[str, bytes] | None = None,
        say: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._directory = directory
        self._listener = listener
        self._credentials = credentials
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
            # The files as they are now: each connection is held to the newest lists.
            lists, context = self._credentials.state(), self._credentials.server()
            with plain, context.wrap_socket(plain, server_side=True) as secured:
                secured.settimeout(_IDLE)
                name = client_name(secured)
                with secured.makefile("rwb") as stream:
                    self._client(name, stream, lists)
                with suppress(OSError):
                    secured.unwrap()
        except (OSError, EOFError, JournalError, MalformedError) as failed:
            self._say(f"{peer}: {failed or 'the connection ended within a message'}")
        finally:
            self._free.release()

    def _client(self, name: str, stream: Stream, lists: tuple[int, int, int]) -> None:
        end = time.monotonic() + _LONGEST
        try:
            replica = Replica(self._directory / name, self._keys.get(name))
            head = replica.head()
            _answer(stream, f"HEAD {head if head.seq else 0}")
            while (received := read_frame(stream)) is not None:
                if time.monotonic() > end or self._credentials.state() != lists:
                    raise ConnectionAbortedError("it must show its certificate again")
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
