"""One side of one connection: frames in, frames out."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable

from conformance.application.message import HEADER, Message, MessageError, body_length, decode, encode
from conformance.application.tls import HANDSHAKE_SECONDS, Terms, check_peer, context
from conformance.pki.identities import Identity


def receive(connection: ssl.SSLSocket, note: Callable[[int], None] = lambda _count: None) -> Message:
    """Return the next message.

    Args:
        connection: After its handshake.
        note: Told of every byte that is read, whatever comes of it.

    Raises:
        MessageError: What came is none, or the peer ended in the middle.
        OSError: The connection failed, or nothing came in time.

    """
    length = body_length(_exactly(connection, HEADER.size, note))
    return decode(_exactly(connection, length, note))


def ask(plain: socket.socket, identity: Identity, request: Message, *, uri: str, name: str, terms: Terms) -> Message:
    """Return a server's answer to `request`, over a TCP connection that this function closes.

    Args:
        plain: Connected.
        identity: The client's.
        request: What to ask.
        uri: The server's, which its certificate must have.
        name: The server's, to ask for (SNI, RFC 6066).
        terms: Of the flow.

    Raises:
        PeerError: The server is not who it should be.
        MessageError: Its answer is none.
        OSError: The connection or the handshake failed (ssl.SSLError among them).

    """
    with plain:
        plain.settimeout(HANDSHAKE_SECONDS)
        ours = context(identity, frozenset({terms.assurance}), terms.alpn, server=False)
        with ours.wrap_socket(plain, server_hostname=name) as connection:
            check_peer(connection, {uri: terms})
            connection.sendall(encode(request))
            return receive(connection)


def _exactly(connection: ssl.SSLSocket, length: int, note: Callable[[int], None]) -> bytes:
    found = bytearray()
    while len(found) < length:
        part = connection.recv(length - len(found))
        note(len(part))
        if not part:
            raise MessageError(f"the peer ended after {len(found)} of {length} bytes")
        found += part
    return bytes(found)
