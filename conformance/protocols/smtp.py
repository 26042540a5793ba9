"""An SMTP server on sockets that were opened by its parent: ``python -m conformance.protocols.smtp DESCRIPTOR…``.

A program of its own, since aiosmtpd's licence does not go together with scapy's in one process.  It prints a line when
it listens, then one for each connection, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from typing import Any

from aiosmtpd.handlers import Sink
from aiosmtpd.smtp import SMTP


class _CountedSMTP(SMTP):  # type: ignore[misc]
    def connection_made(self, transport: Any) -> None:
        """Tell the parent where the connection came to."""
        name = transport.get_extra_info("sockname")
        print(json.dumps({"address": name[0], "port": name[1]}), flush=True)
        super().connection_made(transport)


async def _serve(descriptors: list[int]) -> None:
    loop = asyncio.get_running_loop()
    for descriptor in descriptors:
        listening = socket.socket(fileno=descriptor)
        listening.setblocking(False)
        await loop.create_server(lambda: _CountedSMTP(Sink(), hostname="lab", loop=loop), sock=listening)
    ended = asyncio.Event()

    def heard() -> None:
        if not os.read(sys.stdin.fileno(), 64):
            ended.set()

    loop.add_reader(sys.stdin, heard)
    print(json.dumps({"listening": len(descriptors)}), flush=True)
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(_serve([int(each) for each in sys.argv[1:]]))
