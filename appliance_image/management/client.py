"""What an operator's machine needs to speak with an appliance."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Protocol

from appliance_image.management import protocol
from appliance_image.management.errors import LinkError, RefusedError
from appliance_image.management.protocol import Document, Request
from appliance_image.management.tls import Files, peer_of
from appliance_image.management.transport import CHUNK, Lines, Plain, Secured

_CONNECT, _HANDSHAKE, _WORD = 10.0, 15.0, 60.0
"""Seconds for a connection, for all of its handshakes, and from one word of the appliance to the next."""
_AGAIN = 2.0
"""Seconds between attempts to reach an appliance that is just changing."""
_CHANGE_SECONDS = 600.0
"""How long a change is waited for when its connection was lost."""


@dataclass(frozen=True, slots=True)
class Target:
    """An appliance as its topology knows it."""

    firewall: str
    address: str
    port: int
    prologue: bytes
    relay_name: str
    """The DNS name of whose TLS is met first: the appliance's own relay, or that of the first firewall on the way."""
    relay_uri: str
    """The URI of the same."""
    name: str
    """The appliance's own DNS name."""
    uri: str
    """The appliance's own URI."""


class Bytes(Protocol):
    """An upload."""

    def read(self, size: int, /) -> bytes:
        """Return so many bytes, fewer at the end."""


class Connection:
    """An open connection, after its greeting."""

    def __init__(self, plain: Plain, inner: Secured, lines: Lines) -> None:
        self._plain = plain
        self._inner = inner
        self._lines = lines
        self.greeting = self._last(lambda _text: None)

    def ask(
        self, request: Request, upload: Bytes | None = None, progress: Callable[[str], None] = lambda _text: None
    ) -> Document:
        """Return the appliance's answer.

        Raises:
            RefusedError: It refuses; holds its code and its text.
            LinkError: The connection failed; what became of a change, ``outcome`` tells.

        """
        self._plain.within(_WORD)
        self._inner.send(request.line())
        return self._last(progress, upload)

    def _last(self, progress: Callable[[str], None], upload: Bytes | None = None) -> Document:
        while True:
            self._plain.within(_WORD)
            line = self._lines.line()
            if line is None:
                raise LinkError("the appliance has ended the connection")
            kind, said = protocol.reply(protocol.decode(line))
            if kind == "refused":
                raise protocol.refused(said)
            if kind == "answer":
                found: Document = said
                return found
            if kind == "continue" and upload is not None:
                self._send(upload)
                upload = None
            elif kind == "progress":
                progress(said)

    def _send(self, upload: Bytes) -> None:
        while part := upload.read(CHUNK):
            self._plain.within(_WORD)
            self._inner.send(part)


@contextmanager
def connected(target: Target, files: Files) -> Iterator[Connection]:
    """Yield a new connection to an appliance that has shown who it is, and greeted.

    Raises:
        LinkError: It is not reached, or either side does not trust the other.
        RefusedError: The appliance refuses the operator.

    """
    with ExitStack() as stack:
        try:
            plain_socket = stack.enter_context(socket.create_connection((target.address, target.port), _CONNECT))
        except OSError as failed:
            where = f"{target.firewall} ({target.address} port {target.port})"
            raise LinkError(f"{where} is not reached: {failed.strerror or failed}") from None
        plain = Plain(plain_socket, _HANDSHAKE)
        context = files.context(server=False)
        outer = Secured(plain, context, server=False, name=target.relay_name, layer=f"TLS with {target.relay_name}")
        outer.handshake()
        _check(outer, target.relay_uri)
        outer.send(target.prologue)
        _expect(outer, target.prologue)
        context = files.context(server=False)
        inner = Secured(outer, context, server=False, name=target.name, layer=f"TLS with {target.name} itself")
        inner.handshake()
        _check(inner, target.uri)
        connection = Connection(plain, inner, Lines(inner, protocol.MOST_REPLY))
        yield connection
        inner.end()
        outer.end()


def change(
    target: Target,
    files: Files,
    command: str,
    arguments: Document,
    *,
    upload: Path | bytes | None = None,
    progress: Callable[[str], None] = lambda _text: None,
) -> Document:
    """Have a change made and return what it came to, also when the change itself ends the connection.

    Raises:
        RefusedError: It was refused.
        LinkError: The appliance is not reached, or not any more: what became of the change is not known.

    """
    size = 0 if upload is None else len(upload) if isinstance(upload, bytes) else upload.stat().st_size
    request = protocol.request(
        {"command": command, "arguments": {**arguments, "request": secrets.token_hex(16)}, "size": size}
    )
    asked = False
    try:
        with ExitStack() as stack:
            stream: Bytes | None = None
            if upload is not None:
                stream = stack.enter_context(BytesIO(upload) if isinstance(upload, bytes) else upload.open("rb"))
            connection = stack.enter_context(connected(target, files))
            asked = True
            return connection.ask(request, stream, progress)
    except LinkError as lost:
        if not asked:
            raise
        progress(f"the connection was lost ({lost}); asking over a new one")
        return _outcome(target, files, request, progress)


def confirm(target: Target, files: Files, progress: Callable[[str], None] = lambda _text: None) -> Document:
    """Confirm over a new connection, and over another one if that was too early to prove anything.

    Raises:
        RefusedError: It was refused.
        LinkError: The appliance is not reached: it will go back by itself.

    """
    left = Plain.after(_CHANGE_SECONDS)
    while True:
        try:
            return change(target, files, "confirm", {}, progress=progress)
        except RefusedError as refused:
            if refused.code not in {"old-connection", "busy"} or refused.retry_after is None or left() <= 0:
                raise
            progress(f"{refused.text}: again in {refused.retry_after:.0f} s")
            time.sleep(refused.retry_after)


def restart(
    target: Target, files: Files, seconds: float, progress: Callable[[str], None] = lambda _text: None
) -> Document | None:
    """Have an appliance start again, and return its status when it has; None if it is not waited for.

    Args:
        target: The appliance.
        files: The operator's identity.
        seconds: How long it is waited for; 0 for not at all.
        progress: Told why it is still waited for.

    Raises:
        RefusedError: It refuses.
        LinkError: It is not reached, or has not come back in that time.

    """
    request = protocol.request({"command": "restart", "arguments": {"request": secrets.token_hex(16)}, "size": 0})
    with connected(target, files) as connection:
        before = connection.ask(Request("status", {})).get("boot")
    asked = False
    try:
        with connected(target, files) as connection:
            asked = True
            connection.ask(request)
    except LinkError:
        # It may have been faster than its answer.
        if not asked:
            raise
    left = Plain.after(seconds)
    while left() > 0:
        time.sleep(_AGAIN)
        try:
            with connected(target, files) as connection:
                found = connection.ask(Request("status", {}))
        except LinkError as away:
            progress(str(away))
            continue
        if found.get("boot") != before:
            return found
    if seconds:
        raise LinkError(f"{target.firewall} has not come back in {seconds:.0f} s")
    return None


def _outcome(target: Target, files: Files, request: Request, progress: Callable[[str], None]) -> Document:
    left = Plain.after(_CHANGE_SECONDS)
    question = Request("outcome", {"request": request.arguments["request"]})
    while True:
        try:
            with connected(target, files) as connection:
                found = connection.ask(question)
        except LinkError as failed:
            if left() <= 0:
                raise LinkError(f"what became of it is not known: {failed}") from None
            progress(str(failed))
            time.sleep(_AGAIN)
            continue
        outcome = found.get("outcome")
        if outcome == "answer" and isinstance(found.get("answer"), dict):
            done: Document = found["answer"]
            return done
        if outcome == "refused" and isinstance(found.get("refused"), dict):
            raise protocol.refused(found["refused"])
        if outcome != "running" or left() <= 0:
            raise LinkError("the appliance does not know what became of it; ask for its status")
        time.sleep(_AGAIN)


def _check(layer: Secured, uri: str) -> None:
    found = peer_of(layer).uri
    if found != uri:
        raise LinkError(f"the other end is {found}, and should be {uri}")


def _expect(outer: Secured, prologue: bytes) -> None:
    begun = b""
    while len(begun) < len(prologue):
        part = outer.receive(len(prologue) - len(begun))
        if not part:
            raise LinkError("the relay has ended the connection")
        begun += part
        if not prologue.startswith(begun):
            raise LinkError("the appliance does not begin as its flow says")
