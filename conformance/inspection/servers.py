"""Servers that tolerate everything, so that only what stands before them can refuse."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from conformance.lab import LabError, Namespace
from conformance.lab.listening import listeners
from conformance.pki.identities import Identity
from netpolicy.topology.model import Address

_START_SECONDS = 10.0
_POLL = 0.005
_IDLE = 0.2


@dataclass(frozen=True, slots=True)
class Lax:
    """What a tolerant server is like."""

    identity: Identity
    options: tuple[str, ...] = ()
    """More for ``openssl s_server``."""
    says: bytes = b""
    """To its first client, inside TLS, without being asked."""
    obedient: bool = False
    """Whether it does what it is told; it then writes more than what it has read."""


class LaxServer(Protocol):
    """Something that listens, takes whatever comes, and counts what reaches its application."""

    def received(self) -> bytes:
        """Return what its application has read so far."""


class _Plain:
    """A server without TLS, that may speak first."""

    def __init__(self, listening: socket.socket, greeting: bytes) -> None:
        self._listening = listening
        self._greeting = greeting
        self._received = bytearray()
        self._ended = threading.Event()

    def received(self) -> bytes:
        """Return what has come so far."""
        return bytes(self._received)

    def serve(self) -> None:
        """Take connections until the end."""
        while not self._ended.is_set():
            try:
                connection, _ = self._listening.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(_IDLE)
                self._attend(connection)

    def end(self) -> None:
        """Have it stop."""
        self._ended.set()

    def _attend(self, connection: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):
            if self._greeting:
                connection.sendall(self._greeting)
            while not self._ended.is_set():
                try:
                    part = connection.recv(65536)
                except TimeoutError:
                    continue
                if not part:
                    return
                self._received += part
                connection.sendall(b"250 go on\r\n")


class TlsServer:
    """OpenSSL's own test server: it asks for a certificate, and takes any, and none."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self._process = process
        self._output = output

    def received(self) -> bytes:
        """Return what was decrypted so far."""
        return self._output.read_bytes()

    def tell(self, said: bytes) -> None:
        """Write to its standard input: what to say, or, if it is obedient, what to do."""
        if self._process.stdin is not None:
            self._process.stdin.write(said)
            self._process.stdin.flush()


@contextmanager
def lax_plain(namespace: Namespace, address: Address, port: int, greeting: bytes = b"") -> Iterator[LaxServer]:
    """Serve without TLS while inside, speaking first if there is a greeting."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    listening = namespace.call(lambda: socket.create_server((str(address), port), family=family))
    with listening:
        listening.settimeout(_IDLE)
        server = _Plain(listening, greeting)
        thread = threading.Thread(target=server.serve, name=f"lax {namespace.name}")
        thread.start()
        try:
            yield server
        finally:
            server.end()
            thread.join()


@contextmanager
def lax_tls(namespace: Namespace, address: Address, port: int, lax: Lax, *, work: Path) -> Iterator[TlsServer]:
    """Serve TLS while inside.

    Args:
        namespace: Where.
        address: Of the listening socket.
        port: Of it.
        lax: What it is like.
        work: An existing directory for what it receives.

    Raises:
        LabError: It does not listen.

    """
    target = f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"
    output = work / f"received-{address}-{port}"
    argv = [
        *("openssl", "s_server", "-accept", target, "-verify", "9", *(() if lax.obedient else ("-quiet",))),
        *("-cert", str(lax.identity.chain), "-cert_chain", str(lax.identity.chain), "-key", str(lax.identity.key)),
        *lax.options,
    ]
    with output.open("wb") as stream:
        process = namespace.popen(
            argv,
            stdin=subprocess.PIPE,  # at its end the server would end
            stdout=stream,
            stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", "OPENSSL_CONF": "/dev/null"},
        )
    server = TlsServer(process, output)
    try:
        if lax.says:
            server.tell(lax.says)
        _await_listening(process, address, port)
        yield server
    finally:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _await_listening(process: subprocess.Popen[bytes], address: Address, port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if any(each.port == port for each in listeners(process.pid, address.version)):
            return
        time.sleep(_POLL)
    raise LabError(f"openssl s_server does not listen on port {port} (exit code {process.poll()})")
