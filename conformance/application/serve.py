"""All servers of a lab in one process: each socket was made in the namespace it listens in, and stays there."""

from __future__ import annotations

import json
import selectors
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address

from conformance.application.book import Listener, listeners, peers
from conformance.application.connection import receive
from conformance.application.message import MessageError, answer_to, encode
from conformance.application.tls import HANDSHAKE_SECONDS, PeerError, check_peer, context
from conformance.lab import Lab
from conformance.pki import Identities
from netpolicy.intent.routing import Routing
from netpolicy.topology.model import Address

PEERS = "peers.json"
"""Beside a node's certificate: the servers it may ask."""

_WORKERS = 16
_BACKLOG = 64


class Serving:
    """Running servers, and what their applications have received."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received: Counter[tuple[Address, int, Address]] = Counter()
        self.refusals: list[str] = []
        """Why connections ended without a message, oldest first."""

    def received(self, address: Address, port: int, client: Address) -> int:
        """Return the bytes of application messages that a server has read from a client so far."""
        with self._lock:
            return self._received[address, port, client]

    def note(self, listener: Listener, client: Address, count: int) -> None:
        """Count what an application has read."""
        with self._lock:
            self._received[listener.address, listener.port, client] += count

    def refuse(self, listener: Listener, why: str) -> None:
        """Remember why a connection came to nothing."""
        with self._lock:
            self.refusals.append(f"{listener.owner.id} port {listener.port}: {why}")


@contextmanager
def serve_lab(lab: Lab, identities: Identities) -> Iterator[Serving]:
    """Serve every destination of every effective flow while inside; write every node's :data:`PEERS`.

    Raises:
        OSError: A socket cannot be made, or a file not written.

    """
    routing = Routing(lab.topology)
    for node, known in peers(lab.topology, routing).items():
        path = identities.of(lab.topology.nodes[node]).directory / PEERS
        path.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    serving = Serving()
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for listener in listeners(lab.topology, routing):
            made = lab.namespace(listener.owner.id).call(_opener(listener))
            selector.register(stack.enter_context(made), selectors.EVENT_READ, listener)
        pool = stack.enter_context(ThreadPoolExecutor(_WORKERS, thread_name_prefix="application"))
        waking, wake = (stack.enter_context(each) for each in socket.socketpair())
        selector.register(waking, selectors.EVENT_READ)
        accepting = threading.Thread(target=_accept, args=(selector, pool, identities, serving), name="application")
        accepting.start()
        try:
            yield serving
        finally:
            wake.send(b".")
            accepting.join()


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
                serving.refuse(key.data, f"the client was gone before it was accepted: {gone}")
                continue
            pool.submit(_attend, plain, ip_address(client[0]), key.data, identities, serving)


def _attend(
    plain: socket.socket, client: Address, listener: Listener, identities: Identities, serving: Serving
) -> None:
    """Handshake, check who it is, then answer one request; anything wrong ends the connection."""
    with plain:
        plain.settimeout(HANDSHAKE_SECONDS)
        assurances = frozenset(listener.allowed.values())
        try:
            ours = context(identities.of(listener.owner), assurances, listener.alpn, server=True)
            with ours.wrap_socket(plain, server_side=True) as connection:
                check_peer(connection, listener.allowed, listener.alpn)
                request, length = receive(connection)
                serving.note(listener, client, length)
                connection.sendall(encode(answer_to(request)))
                _finish(connection)
        except (OSError, PeerError, MessageError) as refused:
            serving.refuse(listener, str(refused))


def _finish(connection: ssl.SSLSocket) -> None:
    """Wait for the client's own end, so that no reset overtakes the answer."""
    connection.recv(1)
