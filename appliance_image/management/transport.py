"""Bytes in order, with a time limit for each stage: over a socket, and over TLS over anything of the kind."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from appliance_image.management.errors import LinkError, RefusedError, SlowError

T = TypeVar("T")
CHUNK = 1 << 16
_LEAST_WAIT = 0.001


class Transport(Protocol):
    """A connection."""

    def receive(self, most: int) -> bytes:
        """Return some bytes, at most so many; none when the peer has ended in order."""

    def send(self, data: bytes) -> None:
        """Send all of it."""


class Plain:
    """A connected socket whose every stage has an end: whoever drips byte by byte gets no more time than others."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        """Wrap a socket; it is closed by who made it. The first stage lasts `seconds`."""
        self._connection = connection
        self._until = time.monotonic() + seconds

    def within(self, seconds: float) -> None:
        """Begin a stage, which must be over in so many seconds."""
        self._until = time.monotonic() + seconds

    @staticmethod
    def after(seconds: float) -> Callable[[], float]:
        """Return a function that tells how many of so many seconds are left."""
        until = time.monotonic() + seconds
        return lambda: until - time.monotonic()

    def receive(self, most: int) -> bytes:
        """Return some bytes.

        Raises:
            LinkError: The stage's time is over, or the connection failed.

        """
        return self._timed(lambda: self._connection.recv(most))

    def send(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            LinkError: The stage's time is over, or the connection failed.

        """
        self._timed(lambda: self._connection.sendall(data))

    def finish(self, seconds: float, most: int = 1 << 20) -> None:
        """End this side, and take what still comes for a while, so that no reset overtakes what was said last."""
        self.within(seconds)
        with contextlib.suppress(LinkError, OSError):
            self._connection.shutdown(socket.SHUT_WR)
            while most > 0 and (data := self.receive(CHUNK)):
                most -= len(data)

    def _timed(self, function: Callable[[], T]) -> T:
        left = self._until - time.monotonic()
        if left <= 0:
            raise SlowError("too slow")
        self._connection.settimeout(max(left, _LEAST_WAIT))
        try:
            return function()
        except TimeoutError:
            raise SlowError("too slow") from None
        except OSError as failed:
            raise LinkError(f"the connection failed: {failed.strerror or failed}") from None


class Secured:
    """TLS over a transport."""

    def __init__(
        self, lower: Transport, context: ssl.SSLContext, *, server: bool, name: str | None = None, layer: str = "TLS"
    ) -> None:
        """Prepare it; see :meth:`handshake`.

        Args:
            lower: What carries it.
            context: How.
            server: Which side this is.
            name: For a client, whom it asks for.
            layer: What errors call it.

        """
        self._lower = lower
        self._layer = layer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server, server_hostname=name)

    def handshake(self) -> None:
        """Agree.

        Raises:
            LinkError: The peer is refused, or refuses; or the transport failed.

        """
        self._pump(self._tls.do_handshake)

    @property
    def object(self) -> ssl.SSLObject:
        """What tells who the peer is."""
        return self._tls

    def receive(self, most: int) -> bytes:
        """Return some bytes; none when the peer has ended in order.

        Raises:
            LinkError: It ended otherwise, or refuses.

        """
        return self._pump(lambda: self._tls.read(most))

    def send(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            LinkError: It cannot be sent.

        """
        for start in range(0, len(data), CHUNK):
            part = data[start : start + CHUNK]
            self._pump(lambda part=part: self._tls.write(part))  # type: ignore[misc]

    def end(self) -> None:
        """Tell the peer that nothing follows; it may be gone."""
        # It wants to read the peer's own end, which nobody waits for.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        with contextlib.suppress(LinkError):
            self._flush()

    def _pump(self, function: Callable[[], T]) -> T:
        while True:
            try:
                result = function()
            except ssl.SSLWantReadError:
                self._flush()
                data = self._lower.receive(CHUNK)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            except ssl.SSLEOFError:
                raise LinkError(f"{self._layer}: the peer ended in the middle") from None
            except ssl.SSLError as refused:
                self._flush_alert()
                raise LinkError(f"{self._layer}: {_reason(refused)}") from None
            else:
                self._flush()
                return result

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._lower.send(self._outgoing.read())

    def _flush_alert(self) -> None:
        """Let the peer know why, if it still hears."""
        with contextlib.suppress(LinkError):
            self._flush()


class Lines:
    """Lines of bounded length, and the bytes between them."""

    def __init__(self, lower: Transport, most: int) -> None:
        """Read from a transport; no line is longer than `most` bytes, its newline included."""
        self._lower = lower
        self._most = most
        self._held = b""

    def line(self) -> bytes | None:
        """Return the next line without its newline; None when the peer has ended in order.

        Raises:
            RefusedError: It is too long (``oversize``), or has no end (``malformed``).
            LinkError: The connection failed.

        """
        while True:
            line, newline, rest = self._held.partition(b"\n")
            if len(line) + 1 > self._most:
                raise RefusedError("oversize", f"a line is longer than {self._most} bytes")
            if newline:
                self._held = rest
                return line
            data = self._lower.receive(self._most)
            if not data:
                if self._held:
                    raise RefusedError("malformed", "the last line has no end")
                return None
            self._held += data

    def some(self, most: int) -> bytes:
        """Return some of the bytes that follow a line, at most so many; none when the peer has ended."""
        if self._held:
            found, self._held = self._held[:most], self._held[most:]
            return found
        return self._lower.receive(min(most, CHUNK))

    @property
    def held(self) -> bool:
        """Whether something came already that nobody has asked for."""
        return bool(self._held)


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the peer's certificate is refused: {error.verify_message}"
    reason = str(error.reason or error).replace("_", " ").lower()
    return f"the peer refuses: {reason.partition(' alert ')[2]}" if " alert " in reason else reason
