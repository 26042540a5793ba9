"""An FTP server in this network namespace: ``python -m conformance.protocols.ftp ADDRESS PORT [ADDRESS PORT]…``.

It prints a line when it listens, then one for each connection, and ends with its standard input.
"""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import sys
import tempfile
from typing import Any

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.ioloop import IOLoop
from pyftpdlib.servers import FTPServer

from conformance.protocols.catalogue import GREETING


def main(arguments: list[str]) -> int:
    """Serve an empty directory to anybody."""
    logging.getLogger("pyftpdlib").setLevel(logging.CRITICAL)
    loop = IOLoop()
    servers = []
    with tempfile.TemporaryDirectory() as directory:
        authorizer = DummyAuthorizer()
        authorizer.add_anonymous(directory)
        for address, port in zip(arguments[::2], arguments[1::2], strict=True):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listening = socket.create_server((address, int(port)), family=family, backlog=64)
            servers.append(FTPServer(listening, _handler(address, int(port), authorizer), ioloop=loop))
        print(json.dumps({"listening": len(servers)}), flush=True)
        while not _ended():
            loop.loop(timeout=0.05, blocking=False)
        for server in servers:
            server.close_all()
    return 0


def _handler(address: str, port: int, authorizer: DummyAuthorizer) -> type[FTPHandler]:
    class Handler(FTPHandler):  # type: ignore[misc]
        banner = GREETING

        def on_connect(self) -> None:
            print(json.dumps({"address": address, "port": port}), flush=True)

        def log(self, *_args: Any, **_kwargs: Any) -> None:
            """Say nothing."""

    Handler.authorizer = authorizer
    return Handler


def _ended() -> bool:
    readable, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(readable) and not os.read(sys.stdin.fileno(), 64)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
