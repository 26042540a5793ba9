"""A second handshake on a connection that a first one has opened, by OpenSSL's own client: Python's cannot."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conformance.application.book import Exchange
from conformance.inspection.alerts import Ends
from conformance.inspection.case import Again
from conformance.inspection.ports import bound
from conformance.inspection.servers import TlsServer, lax_tls
from conformance.lab import LabError, Namespace

_FIRST_SECONDS = 10.0
"""In which what is said after the first handshake must have come."""
_PATIENCE = 0.7
"""Seconds for a second handshake, and for what is said after it. What an engine drops does not come later."""
_POLL = 0.02
_BEGIN = b"R\n"
"""What has ``openssl s_client`` begin a handshake, if it reads nothing else with it."""
_ASK = b"r\n"
"""What has ``openssl s_server`` ask for one (HelloRequest)."""


@dataclass(frozen=True, slots=True)
class Renegotiated:
    """What came of it."""

    ends: Ends
    received: int
    """Bytes that the server's application has read after the second handshake was begun."""
    client: str
    """How it ended for the client."""


def renegotiate(
    client: Namespace, server: Namespace, exchange: Exchange, again: Again, request: bytes, *, work: Path
) -> Renegotiated:
    """Say the request, have the handshake begin again, and say the request once more.

    Raises:
        LabError: The server does not listen, or the request did not come before the second handshake.
        OSError: A program cannot be started.

    """
    with (
        lax_tls(server, exchange.address, exchange.port, again.server, work=work) as listening,
        _client(client, exchange, again) as (process, ends),
    ):
        _say(process, request)
        if not _await(listening, request, 1, _FIRST_SECONDS):
            raise LabError("nothing was read before a second handshake")
        if again.asked:
            listening.tell(_ASK)
        else:
            _say(process, _BEGIN)
        time.sleep(_PATIENCE)
        _say(process, request)
        _await(listening, request, 2, _PATIENCE)
        ended = "nothing" if process.poll() is None else "the end of its connection"
        return Renegotiated(ends, (listening.received().count(request) - 1) * len(request), ended)


@contextmanager
def _client(namespace: Namespace, exchange: Exchange, again: Again) -> Iterator[tuple[subprocess.Popen[bytes], Ends]]:
    """Yield a client that takes any server, and the ends of its connection."""
    here = exchange.client_address
    with bound(namespace, here) as free:
        port: int = free.getsockname()[1]
    form = "{}:{}" if here.version == 4 else "[{}]:{}"
    argv = [
        *("openssl", "s_client", "-tls1_2", "-cipher", again.suites, "-legacy_renegotiation"),
        *("-connect", form.format(exchange.address, exchange.port), "-bind", form.format(here, port)),
        *("-servername", exchange.name, "-alpn", exchange.alpn, "-key", str(again.identity.key)),
        *("-cert", str(again.identity.chain), "-cert_chain", str(again.identity.chain)),
    ]
    process: subprocess.Popen[bytes] = namespace.popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "OPENSSL_CONF": "/dev/null"},
    )
    try:
        yield process, (here, port, exchange.address, exchange.port)
    finally:
        process.kill()
        process.wait()
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()


def _say(process: subprocess.Popen[bytes], said: bytes) -> None:
    """Have a client say something; one whose server has ended the connection is no longer there to hear it."""
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(said)
            process.stdin.flush()


def _await(server: TlsServer, request: bytes, times: int, seconds: float) -> bool:
    """Return whether a request was read so many times, as soon as it was."""
    deadline = time.monotonic() + seconds
    while server.received().count(request) < times:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True
