"""One operator's connection, from its first byte.

Two layers of TLS, since the firewall's relay ends the outer one (assurance `terminate`): that one shows that the
connection has come through this firewall's own relay, which has checked the one before it; the inner one shows who
asks, and no relay on the way can read or change what is said in it.
"""

from __future__ import annotations

import secrets
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from appliance_image.management import link, protocol
from appliance_image.management.endpoint import Access, Endpoint
from appliance_image.management.errors import LinkError, RefusedError, SlowError, printable
from appliance_image.management.protocol import Document, Request
from appliance_image.management.tls import Files, Peer, peer_of
from appliance_image.management.transport import CHUNK, Lines, Plain, Secured


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that a peer has."""

    handshake: float = 5.0
    """For each layer of TLS, and for the prologue."""
    request: float = 45.0
    """Until a whole request has come; the relay ends what is idle for 60 s."""
    upload: float = 600.0
    """Until an upload has come whole."""
    stall: float = 20.0
    """The same of a part of an upload."""
    word: float = 10.0
    """After so long without an answer it is said that the work goes on: relays end what is idle for 60 s."""
    work: float = 1800.0
    """The longest work."""
    farewell: float = 2.0
    """To take a refusal."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of everything."""

    connections: int = 10
    """At the same time."""
    of_one: int = 4
    """The same of one operator."""
    requests: int = 64
    """In one connection."""
    patience: Patience = field(default_factory=Patience)


class Operators:
    """Who is connected."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._present: Counter[str] = Counter()

    @contextmanager
    def present(self, uri: str) -> Iterator[None]:
        """Count an operator while inside.

        Raises:
            RefusedError: It has as many connections as one may have.

        """
        with self._lock:
            if self._present[uri] >= self._most:
                raise RefusedError("too-many", f"one operator has at most {self._most} connections")
            self._present[uri] += 1
        try:
            yield
        finally:
            with self._lock:
                self._present[uri] -= 1
                self._present += Counter()  # forgets those with none


class Session:
    """One connection."""

    def __init__(self, files: Files, privileged: Path, operators: Operators, bounds: Bounds) -> None:
        """Prepare it.

        Args:
            files: This firewall's identity.
            privileged: The socket of the other half.
            operators: Shared with all other sessions.
            bounds: What a peer may take.

        """
        self._files = files
        self._privileged = privileged
        self._operators = operators
        self._bounds = bounds
        self._id = secrets.token_hex(8)
        self._stage = "endpoint"
        self._who = ""

    def attend(self, connection: socket.socket, accepted: float, endpoint: Endpoint, access: Access) -> None:
        """Go through with it; whatever is wrong ends it, and is recorded.

        Args:
            connection: Just taken; closed by the caller.
            accepted: When, in seconds since power-on.
            endpoint: Who may.
            access: The flow of the port at which it came.

        """
        plain = Plain(connection, self._bounds.patience.handshake)
        try:
            with self._outer(plain, endpoint, access) as outer:
                inner = self._inner(plain, outer)
                peer = peer_of(inner)
                self._stage, self._who = "identity", peer.uri
                lines = Lines(inner, protocol.MOST_REQUEST)
                try:
                    self._converse(plain, inner, lines, peer, (accepted, endpoint, access))
                except RefusedError as refused:
                    plain.within(self._bounds.patience.handshake)
                    inner.send(protocol.encode(protocol.refusal(refused)))
                    inner.end()
                    raise
                inner.end()
        except RefusedError as refused:
            plain.finish(self._bounds.patience.farewell)
            self._record(refused.code, refused.text)
        except LinkError as failed:
            plain.finish(self._bounds.patience.farewell)
            self._record("link", str(failed))
        else:
            plain.finish(self._bounds.patience.farewell)

    @contextmanager
    def _outer(self, plain: Plain, endpoint: Endpoint, access: Access) -> Iterator[Secured]:
        """Yield the layer that the relay ends, after the prologue."""
        self._stage = "relay"
        outer = Secured(plain, self._files.context(server=True), server=True, layer="the relay's TLS")
        outer.handshake()
        relay = peer_of(outer)
        if relay.uri != endpoint.uri:
            raise RefusedError("relay", f"the connection comes from {relay.uri}, not through this firewall's relay")
        self._stage = "prologue"
        plain.within(self._bounds.patience.handshake)
        begun = b""
        while len(begun) < len(access.prologue):
            part = outer.receive(len(access.prologue) - len(begun))
            if not part or not access.prologue.startswith(begun + part):
                raise RefusedError("prologue", "the connection does not begin as its flow says")
            begun += part
        outer.send(access.prologue)
        yield outer
        outer.end()

    def _inner(self, plain: Plain, outer: Secured) -> Secured:
        """Return the layer that the operator ends."""
        self._stage = "operator"
        plain.within(self._bounds.patience.handshake)
        inner = Secured(outer, self._files.context(server=True), server=True, layer="the operator's TLS")
        inner.handshake()
        return inner

    def _converse(
        self, plain: Plain, inner: Secured, lines: Lines, peer: Peer, at: tuple[float, Endpoint, Access]
    ) -> None:
        accepted, endpoint, access = at
        if peer.uri not in access.operators:
            raise RefusedError("identity", f"{peer.uri} is no operator of this firewall")
        with self._operators.present(peer.uri):
            session: Document = {"id": self._id, "operator": peer.uri, "flow": access.flow, "accepted": accepted}
            self._stage = "login"
            link.ask(self._privileged, {"do": "login", "session": session, "serial": peer.serial})
            greeting = {"format": protocol.FORMAT, "firewall": endpoint.firewall, "session": self._id}
            inner.send(protocol.encode({"answer": greeting}))
            self._stage = "request"
            for _ in range(self._bounds.requests):
                plain.within(self._bounds.patience.request)
                line = lines.line()
                if line is None:
                    return
                request = protocol.request(protocol.decode(line))
                if lines.held:
                    # Nothing may stand between a request and its answer: what is no upload is nothing.
                    raise RefusedError("malformed", "something follows a request before its answer")
                if not self._forward(plain, inner, lines, session, request):
                    return
            raise RefusedError("too-many", f"a connection takes at most {self._bounds.requests} requests")

    def _forward(self, plain: Plain, inner: Secured, lines: Lines, session: Document, request: Request) -> bool:
        """Have one request answered; return whether another one may follow."""
        asked = {"command": request.command, "arguments": request.arguments, "size": request.size}
        with link.linked(self._privileged) as other:
            other.send(protocol.encode({"do": "request", "session": session, "request": asked}))
            uploaded, begun = not request.size, False
            left = Plain.after(self._bounds.patience.work)
            while True:
                try:
                    document = other.reply(self._bounds.patience.word)
                except SlowError:
                    if left() <= 0:
                        raise
                    document = {"progress": request.command}
                kind, _ = protocol.reply(document)
                plain.within(self._bounds.patience.stall)
                inner.send(protocol.encode(document))
                if kind == "continue" and not uploaded:
                    uploaded = self._upload(plain, lines, other, request.size)
                    begun = True
                if kind in {"answer", "refused"}:
                    # Half an upload cannot be told from the next request.
                    return uploaded or not begun

    def _upload(self, plain: Plain, lines: Lines, other: link.Link, size: int) -> bool:
        """Hand an upload on as it comes; return whether all of it was taken. If not, the other half says why.

        Raises:
            LinkError: The operator does not send it, or not in time.

        """
        patience = self._bounds.patience
        left = Plain.after(patience.upload)
        while size:
            plain.within(min(patience.stall, left()))
            part = lines.some(min(size, CHUNK))
            if not part:
                raise LinkError("the upload ended early")
            size -= len(part)
            try:
                other.send(part)
            except LinkError:
                return False
        return True

    def _record(self, code: str, reason: str) -> None:
        """Have a refusal recorded; when that cannot be, the other half says so itself."""
        fields = {"session": self._id, "stage": self._stage, "code": code, "reason": printable(reason, 300)}
        if self._who:
            fields["operator"] = printable(self._who, 300)
        try:
            link.ask(self._privileged, {"do": "refused", "fields": fields})
        except (LinkError, RefusedError) as failed:
            print(f"netpolicy management: not recorded: {fields}: {failed}", flush=True)
