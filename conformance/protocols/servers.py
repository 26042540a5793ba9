"""Servers of the forbidden protocols on nodes of a lab, each on its standard port and on an unusual one."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any

import telnetlib3

from conformance.lab import Lab
from conformance.protocols.catalogue import GREETING, STANDARD, UNUSUAL, Protocol, Traffic
from netpolicy.environment import ENVIRONMENT
from netpolicy.topology.model import Address, Node

_START_SECONDS = 20.0


@contextmanager
def serve_forbidden(lab: Lab, nodes: Iterable[Node]) -> Iterator[Traffic]:
    """Serve SMTP, HTTP, FTP and Telnet on all addresses of `nodes` while inside.

    Raises:
        OSError: A server cannot listen.

    """
    traffic = Traffic()
    with ExitStack() as stack:
        mail: list[socket.socket] = []
        files: list[AbstractContextManager[None]] = []
        for node in nodes:
            for address in node.interface.addresses:
                for port in (STANDARD[Protocol.SMTP], UNUSUAL[Protocol.SMTP]):
                    made = lab.namespace(node.id).call(partial(_listen, address, port))
                    mail.append(stack.enter_context(made))
                for protocol, serve in _IN_PROCESS.items():
                    for port in (STANDARD[protocol], UNUSUAL[protocol]):
                        stack.enter_context(_running(lab, node, partial(serve, address, port, traffic)))
            files.append(_file_server(lab, node, traffic))
        stack.enter_context(_mail_server(mail, traffic))
        for each in files:
            stack.enter_context(each)
        yield traffic


Stop = Callable[[], None]
Serve = Callable[[Address, int, Traffic, "Future[Stop]"], None]


@contextmanager
def _running(lab: Lab, node: Node, serve: Callable[[Future[Stop]], None]) -> Iterator[None]:
    """Run a server in a thread inside a node's namespace: whatever socket it makes, for data too, belongs there."""
    ready: Future[Stop] = Future()

    def body() -> None:
        try:
            lab.namespace(node.id).call(lambda: serve(ready))
        except Exception as failed:  # noqa: BLE001 - handed to the thread that waits
            if not ready.done():
                ready.set_exception(failed)

    thread = threading.Thread(target=body, name=f"server on {node.id}", daemon=True)
    thread.start()
    stop = ready.result(_START_SECONDS)
    try:
        yield
    finally:
        stop()
        thread.join(_START_SECONDS)


def _listen(address: Address, port: int) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return socket.create_server((str(address), port), family=family, backlog=64)


def _serve_http(address: Address, port: int, traffic: Traffic, ready: Future[Stop]) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(GREETING)))
            self.end_headers()
            self.wfile.write(GREETING.encode())

        def log_message(self, *_args: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def server_bind(self) -> None:
            self.socket.close()
            self.socket = _listen(address, port)

        def verify_request(self, *_args: Any) -> bool:
            traffic.accept(address, port)
            return True

    with Server((str(address), port), Handler) as server:
        ready.set_result(server.shutdown)
        server.serve_forever(poll_interval=0.05)


def _serve_telnet(address: Address, port: int, traffic: Traffic, ready: Future[Stop]) -> None:
    class Server(telnetlib3.TelnetServer):  # type: ignore[misc]
        def connection_made(self, transport: asyncio.Transport) -> None:
            traffic.accept(address, port)
            super().connection_made(transport)

    async def shell(reader: Any, writer: Any) -> None:
        writer.write(f"{GREETING}\r\n")
        await writer.drain()
        await reader.readline()
        writer.close()

    async def serve() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        server = await telnetlib3.create_server(
            str(address), port, protocol_factory=Server, shell=shell, connect_maxwait=0.2
        )

        def stop() -> None:
            loop.call_soon_threadsafe(ended.set)

        ready.set_result(stop)
        await ended.wait()
        server.close()

    asyncio.run(serve())


def _mail_server(listening: list[socket.socket], traffic: Traffic) -> AbstractContextManager[None]:
    """Run aiosmtpd on the sockets; its licence forbids this process (see docs/licences.md)."""
    descriptors = [each.fileno() for each in listening]
    argv = [sys.executable, "-m", "conformance.protocols.smtp", *map(str, descriptors)]
    return _program(subprocess.Popen(argv, pass_fds=descriptors, env=ENVIRONMENT, **_PIPES), traffic)


def _file_server(lab: Lab, node: Node, traffic: Traffic) -> AbstractContextManager[None]:
    """Run pyftpdlib inside a node's namespace; it keeps all its sockets in one map, so it is no guest for threads."""
    argv = [sys.executable, "-m", "conformance.protocols.ftp"]
    for address in node.interface.addresses:
        for port in (STANDARD[Protocol.FTP], UNUSUAL[Protocol.FTP]):
            argv.extend((str(address), str(port)))
    return _program(lab.namespace(node.id).popen(argv, **_PIPES), traffic)


_PIPES: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}


@contextmanager
def _program(process: subprocess.Popen[str], traffic: Traffic) -> Iterator[None]:
    """Have a server that is a program of its own while inside; it prints a line when it listens, then connections."""
    with process:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("asked for pipes")
        lines = process.stdout
        if not lines.readline():
            raise OSError(f"a server ended with code {process.wait()}")

        def count() -> None:
            for line in lines:
                seen = json.loads(line)
                traffic.accept(ip_address(seen["address"]), seen["port"])

        counting = threading.Thread(target=count, name="connections", daemon=True)
        counting.start()
        try:
            yield
        finally:
            process.stdin.close()  # it ends with its input
            counting.join(_START_SECONDS)


_IN_PROCESS: dict[Protocol, Serve] = {
    Protocol.HTTP: _serve_http,
    Protocol.TELNET: _serve_telnet,
}
