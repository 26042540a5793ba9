"""All servers of a lab in one process: each socket was made in the namespace it listens in, and stays there."""

from __future__ import annotations

import errno
import json
import selectors
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address

from conformance.application.book import PEERS, SEALING, Exchange, Listener, listeners, peers
from conformance.application.connection import receive
from conformance.application.message import (
    SEALED,
    MessageError,
    answer_to,
    check_request,
    decode,
    encode,
    frame,
    written,
)
from conformance.application.seal import about, seal, unseal
from conformance.application.tls import HANDSHAKE_SECONDS, PeerError, check_peer, context
from conformance.lab import Lab
from conformance.pki import Identities
from netpolicy.intent.routing import Routing
from netpolicy.topology.model import Address, Assurance

_WORKERS = 16
_BACKLOG = 512
_REFUSALS = 1000
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(slots=True)
class Tally:
    """What one server has had of one client."""

    received: int = 0
    """Bytes that the application has read, be they a message or not."""
    ended: int = 0
    """Connections that have begun and ended."""
    refusal: str = ""
    """Why the last of them ended without a message and its answer; empty if it did not."""


_Key = tuple[str, Address, int, Address]
"""Server, its address and port, and the address of its client."""


class Serving:
    """Running servers, and what their applications have received."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tallies: dict[_Key, Tally] = {}
        self._failures: list[BaseException] = []
        self.refusals: deque[str] = deque(maxlen=_REFUSALS)
        """Why the last connections without a message ended, oldest first."""

    def tally(self, each: Exchange) -> Tally:
        """Return what the server of an exchange has had of its client so far."""
        with self._changed:
            return replace(self._tallies.get(_key(each), Tally()))

    def wait_ended(self, each: Exchange, beyond: int, seconds: float) -> Tally:
        """Wait until more than `beyond` connections of a client have ended, at most `seconds`; return the tally."""
        key = _key(each)
        with self._changed:
            self._changed.wait_for(lambda: key in self._tallies and self._tallies[key].ended > beyond, seconds)
            return replace(self._tallies.get(key, Tally()))

    def note(self, listener: Listener, client: Address, count: int) -> None:
        """Count what an application has read."""
        with self._changed:
            self._tally(listener, client).received += count

    def end(self, listener: Listener, client: Address, refusal: str = "") -> None:
        """Count a connection that has ended, and remember why it came to nothing if it did."""
        with self._changed:
            tally = self._tally(listener, client)
            tally.ended += 1
            tally.refusal = refusal
            if refusal:
                self.refusals.append(f"{listener.owner.id} port {listener.port}: {refusal}")
            self._changed.notify_all()

    def check(self, done: Future[None]) -> None:
        """Remember what went wrong in a server itself."""
        error = done.exception()
        if error is not None:
            self._failures.append(error)

    def raise_failures(self) -> None:
        """Raise the first error of a server itself, if there was one."""
        if self._failures:
            raise self._failures[0]

    def _tally(self, listener: Listener, client: Address) -> Tally:
        key = (listener.owner.id, listener.address, listener.port, client)
        return self._tallies.setdefault(key, Tally())


def _key(each: Exchange) -> _Key:
    return each.destination.id, each.server_address, each.port, each.client_address


@contextmanager
def serve_lab(lab: Lab, identities: Identities, workers: int = _WORKERS) -> Iterator[Serving]:
    """Serve every destination of every effective flow while inside; write every node's :data:`PEERS`.

    Args:
        lab: With or without engines and relays.
        identities: Of its ends.
        workers: How many connections are served at once, over all servers.

    Raises:
        OSError: A socket cannot be made, or a file not written.
        Exception: At the end: what a server failed with, if it was not a peer's doing.

    """
    routing = Routing(lab.topology)
    for node, known in peers(lab.topology, routing).items():
        path = identities.of(lab.topology.nodes[node]).directory / PEERS
        path.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        for server in {str(each["destination"]) for each in known if each["sealed"]}:
            end = lab.topology.nodes.get(server) or lab.topology.firewalls[server]
            public = identities.of(end).sealing_public.read_bytes()
            (path.parent / f"{server}{SEALING}").write_bytes(public)
    serving = Serving()
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for listener in listeners(lab.topology, routing):
            if listener.owner.id in lab.elsewhere:
                continue
            made = lab.namespace(listener.owner.id).call(_opener(listener))
            selector.register(stack.enter_context(made), selectors.EVENT_READ, listener)
        pool = stack.enter_context(ThreadPoolExecutor(1 + workers, thread_name_prefix="application"))
        waking, wake = (stack.enter_context(each) for each in socket.socketpair())
        selector.register(waking, selectors.EVENT_READ)
        accepting = pool.submit(_accept, selector, pool, identities, serving)
        accepting.add_done_callback(serving.check)
        try:
            yield serving
        finally:
            wake.send(b".")
            wait([accepting])
    serving.raise_failures()


def _opener(listener: Listener) -> Callable[[], socket.socket]:
    def open_() -> socket.socket:
        family = socket.AF_INET if listener.address.version == 4 else socket.AF_INET6
        made = socket.create_server((str(listener.address), listener.port), family=family, backlog=_BACKLOG)
        made.setblocking(False)
        return made

    return open_


def _accept(
    selector: selectors.BaseSelector, pool: ThreadPoolExecutor, identities: Identities, serving: Serving
) -> None:
    while True:
        for key, _ in selector.select():
            if key.data is None:
                return
            try:
                plain, client = key.fileobj.accept()  # type: ignore[union-attr]
            except OSError as gone:
                if gone.errno in _OUT_OF_RESOURCES:
                    raise
                continue  # the client was gone before it was accepted (accept(2), error handling)
            served = pool.submit(_attend, plain, ip_address(client[0]), key.data, identities, serving)
            served.add_done_callback(serving.check)


def _attend(
    plain: socket.socket, client: Address, listener: Listener, identities: Identities, serving: Serving
) -> None:
    """Handshake, check who it is, then answer one request; anything wrong ends the connection."""
    with plain:
        plain.settimeout(HANDSHAKE_SECONDS)
        assurances = frozenset(terms.assurance for each in listener.allowed.values() for terms in each)
        protocols = sorted({terms.alpn for each in listener.allowed.values() for terms in each})
        ours = context(identities.of(listener.owner), assurances, *protocols, server=True)
        refusal = ""
        try:
            with ours.wrap_socket(plain, server_side=True) as connection:
                _answer(connection, listener, client, identities, serving)
                _finish(connection)
        except (OSError, PeerError, MessageError) as refused:
            refusal = str(refused) or type(refused).__name__
        finally:
            serving.end(listener, client, refusal)


def _answer(
    connection: ssl.SSLSocket, listener: Listener, client: Address, identities: Identities, serving: Serving
) -> None:
    """Answer one request, sealed as the request must be where flows are relayed."""
    via, terms = check_peer(connection, listener.allowed)
    note = partial(serving.note, listener, client)
    if terms.assurance is not Assurance.TERMINATE:
        request = decode(receive(connection, note))
        check_request(request, terms.service, terms.affair)
        connection.sendall(encode(answer_to(request)))
        return
    own = identities.of(listener.owner)
    sealed = receive(connection, note, version=SEALED)
    opened = unseal(own, sealed, about("request", terms.service))
    wanted, of_sender = listener.senders.get(opened.uri, (None, terms))
    if wanted != via or of_sender.service != terms.service:
        raise PeerError(f"the message is from {opened.uri}, and no flow permits it here")
    request = decode(opened.content)
    check_request(request, of_sender.service, of_sender.affair)
    answer = seal(own, opened.answer_key, written(answer_to(request)), about("answer", terms.service, sealed))
    connection.sendall(frame(answer, SEALED))


def _finish(connection: ssl.SSLSocket) -> None:
    """Wait for the client's own end, so that no reset overtakes the answer."""
    connection.recv(1)
