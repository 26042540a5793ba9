"""One attempt on one connection: what the client does, whatever comes back."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from dataclasses import dataclass
from ipaddress import ip_address

from conformance.inspection.alerts import Ends
from conformance.inspection.case import Case
from netpolicy.topology.model import Address

PATIENCE = 0.7
"""Seconds that a client waits for anything. What an engine drops does not come later."""
_PAUSE = 0.02
_FIRST_FLIGHT = 16384


def ends_of(plain: socket.socket) -> Ends:
    """Return the ends of a connected socket, its own first."""
    (here, port), (there, service) = plain.getsockname()[:2], plain.getpeername()[:2]
    return _plain(here), port, _plain(there), service


@dataclass(frozen=True, slots=True)
class Written:
    """What came of an attempt that got as far as writing its request inside TLS."""

    session: ssl.SSLSession | None
    resumed: bool
    read: bytes


def attempt(
    plain: socket.socket,
    case: Case,
    request: bytes,
    session: ssl.SSLSession | None,
    *,
    patience: float,
    hearing: float,
) -> Written | None:
    """Go as far as an attempt gets; return None for one without TLS.

    Args:
        plain: Connected.
        case: What is tried.
        request: What is said inside TLS.
        session: To be resumed.
        patience: Seconds in which each flight of a TLS handshake must come.
        hearing: Seconds in which an answer to the request may come.

    Raises:
        OSError: The connection ended, or nothing came in time (TimeoutError), or TLS failed (ssl.SSLError).

    """
    plain.settimeout(PATIENCE)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if case.greeting and case.patient:
        plain.recv(1024)
    if case.says:
        plain.sendall(case.says)
        time.sleep(_PAUSE)
    if case.context is None:
        plain.recv(1024)
        plain.sendall(request)
        plain.recv(1024)
        return None
    plain.settimeout(patience)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = case.context.wrap_bio(incoming, outgoing, server_hostname=case.name, session=session)
    cuts, early = case.cuts, case.early
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            _flush(plain, outgoing, cuts)
            if early:
                plain.sendall(early)
            cuts, early = (), b""
            _fill(plain, incoming)
    tls.write(request)
    _flush(plain, outgoing, ())
    read = _read(tls, plain, incoming, hearing)
    return Written(tls.session, bool(tls.session_reused), read)


def _read(tls: ssl.SSLObject, plain: socket.socket, incoming: ssl.MemoryBIO, hearing: float) -> bytes:
    """Return the first of an answer; a tolerant server need not give one, and session tickets are none."""
    deadline = time.monotonic() + hearing
    with contextlib.suppress(OSError):
        while (left := deadline - time.monotonic()) > 0:
            plain.settimeout(left)
            _fill(plain, incoming)
            with contextlib.suppress(ssl.SSLWantReadError):
                return tls.read(_FIRST_FLIGHT)
    return b""


def _flush(plain: socket.socket, outgoing: ssl.MemoryBIO, cuts: tuple[int, ...]) -> None:
    """Send what TLS has to say, cut into segments of its own at `cuts`."""
    data = outgoing.read()
    begin = 0
    for cut in (*(each for each in cuts if each < len(data)), len(data)):
        if cut > begin:
            plain.sendall(data[begin:cut])
            begin = cut
            if begin < len(data):
                time.sleep(_PAUSE)


def _fill(plain: socket.socket, incoming: ssl.MemoryBIO) -> None:
    data = plain.recv(_FIRST_FLIGHT)
    if not data:
        raise ConnectionResetError("the peer has ended the connection")
    incoming.write(data)


def _plain(text: str) -> Address:
    return ip_address(text.partition("%")[0])
