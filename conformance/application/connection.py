"""One side of one connection: frames in, frames out."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from conformance.application.message import (
    HEADER,
    SEALED,
    VERSION,
    Message,
    MessageError,
    body_length,
    decode,
    encode,
    frame,
    written,
)
from conformance.application.seal import about, seal, unseal
from conformance.application.tls import HANDSHAKE_SECONDS, PeerError, Terms, check_peer, context
from conformance.pki.identities import Identity


def receive(
    connection: ssl.SSLSocket, note: Callable[[int], None] = lambda _count: None, *, version: int = VERSION
) -> bytes:
    """Return the body of the next frame.

    Args:
        connection: After its handshake.
        note: Told of every byte that is read, whatever comes of it.
        version: Of the frame that is wanted.

    Raises:
        MessageError: What came is none, or the peer ended in the middle.
        OSError: The connection failed, or nothing came in time.

    """
    length = body_length(_exactly(connection, HEADER.size, note), version)
    return _exactly(connection, length, note)


@dataclass(frozen=True, slots=True)
class Server:
    """Whom a client asks."""

    uri: str
    """Whose TLS it meets."""
    name: str
    """The DNS name of the same, to ask for (SNI, RFC 6066)."""
    sealing: bytes | None = None
    """The server's sealing key, where its flow is relayed."""
    sealed_by: str = ""
    """The server's own URI, which must then have sealed the answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a request."""

    answer: Message
    sent: int
    """Bytes of the request's frame."""


def ask(plain: socket.socket, identity: Identity, request: Message, *, server: Server, terms: Terms) -> Reply:
    """Return a server's answer to `request`, over a TCP connection that this function closes.

    Args:
        plain: Connected.
        identity: The client's.
        request: What to ask.
        server: Whom.
        terms: Of the flow.

    Raises:
        PeerError: The server, or the relay before it, is not who it should be.
        MessageError: Its answer is none.
        OSError: The connection or the handshake failed (ssl.SSLError among them).

    """
    with plain:
        plain.settimeout(HANDSHAKE_SECONDS)
        ours = context(identity, frozenset({terms.assurance}), terms.alpn, server=False)
        with ours.wrap_socket(plain, server_hostname=server.name) as connection:
            check_peer(connection, {server.uri: [terms]})
            if server.sealing is None:
                said = encode(request)
                connection.sendall(said)
                return Reply(decode(receive(connection)), len(said))
            sealed = seal(identity, server.sealing, written(request), about("request", terms.service))
            said = frame(sealed, SEALED)
            connection.sendall(said)
            opened = unseal(identity, receive(connection, version=SEALED), about("answer", terms.service, sealed))
            if opened.uri != server.sealed_by:
                raise PeerError(f"the answer is from {opened.uri}, not from {server.sealed_by}")
            return Reply(decode(opened.content), len(said))


def _exactly(connection: ssl.SSLSocket, length: int, note: Callable[[int], None]) -> bytes:
    found = bytearray()
    while len(found) < length:
        part = connection.recv(length - len(found))
        note(len(part))
        if not part:
            raise MessageError(f"the peer ended after {len(found)} of {length} bytes")
        found += part
    return bytes(found)
