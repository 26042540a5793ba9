"""Exchanges of one source while another one takes all that it can get, and where those that fail have ended."""

from __future__ import annotations

import json
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

from conformance.application.book import Exchange, exchanges
from conformance.application.connection import Server, ask
from conformance.application.message import MessageError, answer_to, request_for
from conformance.application.serve import Serving
from conformance.application.tls import PeerError, Terms
from conformance.lab import Lab
from conformance.lab.scope import Scope
from conformance.pki import Identities
from conformance.probe.wire import PacketSocket, received
from conformance.starvation.attacker import Kind, Plan, Target
from netpolicy.intent.routing import Routing
from netpolicy.topology.model import Address, Node

_CONNECT_SECONDS = 10.0
_END_SECONDS = 20.0
"""In which the attacker's process must end when it is told to."""
_NO_RESETS = (
    "table inet starvation {\n\tchain output {\n\t\ttype filter hook output priority 0;\n"
    "\t\ttcp flags & rst == rst counter drop\n\t}\n}\n"
)
"""In the attacker's own kernel: it would reset what it has not opened itself."""
_CONNECTIONS_FILE = "/proc/net/netstat"
_ETHERNET, _TCP = 14, 6
_SYN, _SYN_ACK = 0x02, 0x12

Reached = tuple[Address, int]
"""Whence a connection came."""


@dataclass(slots=True)
class Round:
    """What came of one flood."""

    kind: Kind
    flow: str
    families: tuple[int, ...]
    """In which the attacker speaks; the others are asked for in each of them."""
    asked: int = 0
    passed: int = 0
    seconds: list[float] = field(default_factory=list)
    """Of each exchange, whether it passed or not."""
    failures: Counter[str] = field(default_factory=Counter)
    """Where those that failed have ended, and how."""
    attacked: dict[str, float] = field(default_factory=dict)
    """What the attacker has done."""
    counted: dict[str, int] = field(default_factory=dict)
    """What firewalls have counted meanwhile."""
    overflown: int = 0
    """Connections that the lab's servers had no room for in their accept queues."""

    @property
    def share(self) -> float:
        """Of exchanges that passed, from 0 to 1."""
        return self.passed / self.asked if self.asked else 0.0

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds) if self.seconds else 0.0

    @property
    def worst(self) -> float:
        """Seconds."""
        return max(self.seconds, default=0.0)


@dataclass(frozen=True, slots=True)
class Starvation:
    """A lab in which one node starves, and another one asks the same servers."""

    lab: Lab
    serving: Serving
    identities: Identities
    scope: Scope
    attacker: Node
    neighbour: Node
    sessions: int = 230
    """How many the attacker wants to hold at once."""
    settle: float = 3.0
    """Seconds from the attacker's begin to the first exchange."""
    pause: float = 0.05
    """Seconds between two exchanges."""

    def run(self, kind: Kind, flow: str, families: tuple[int, ...], count: int) -> Round:
        """Have `count` exchanges of the neighbour while the attacker does one thing.

        Raises:
            ScopeError: Something may not be sent.
            RuntimeError: The attacker has failed.

        """
        found = Round(kind, flow, families)
        mine = [each for each in self._exchanges(self.neighbour, flow) if each.address.version in families]
        with ExitStack() as stack:
            arrivals = stack.enter_context(self._arrivals({each.destination.id for each in mine}))
            before, full = self._counters(), self._overflown(mine)
            stack.enter_context(self._attack(found))
            time.sleep(self.settle)
            for number in range(count):
                self._exchange(mine[number % len(mine)], arrivals, found)
                time.sleep(self.pause)
        found.counted = dict(self._counters() - before)
        found.overflown = self._overflown(mine) - full
        for firewall in self.lab.firewalls:
            self.lab.flush_conntrack(firewall)
        return found

    def _exchanges(self, node: Node, flow: str) -> list[Exchange]:
        every = exchanges(self.lab.topology, Routing(self.lab.topology))
        return [each for each in every if each.flow.id == flow and each.source.id == node.id]

    def _exchange(self, each: Exchange, arrivals: _Arrivals, found: Round) -> None:
        """Ask once; what fails is told by where it has ended."""
        flow = each.flow
        request = request_for(flow.service, flow.affair)
        namespace = self.lab.namespace(each.source.id)
        self.scope.admit_connections(namespace, [each.address])
        family = socket.AF_INET if each.address.version == 4 else socket.AF_INET6
        own = next(own for own in each.source.interface.addresses if own.version == each.address.version)
        begun, phase = time.monotonic(), "to connect"
        plain = namespace.call(lambda: socket.socket(family, socket.SOCK_STREAM))
        found.asked += 1
        with plain:
            try:
                plain.bind((str(own), 0))
                port = plain.getsockname()[1]
                plain.settimeout(_CONNECT_SECONDS)
                plain.connect((str(each.address), each.port))
                phase = "to be answered"
                reply = ask(
                    plain,
                    self.identities.of(each.source),
                    request,
                    server=Server(each.uri, each.name, self._sealing(each), each.server_uri),
                    terms=Terms.of(flow, each.alpn),
                )
            except (OSError, PeerError, MessageError) as failed:
                where = "at the server" if arrivals.has((own, port)) else "before the server"
                found.failures[f"{where}, {phase}: {failed}"] += 1
            else:
                if reply.answer == answer_to(request):
                    found.passed += 1
                else:
                    found.failures[f"answered by {reply.answer.kind}"] += 1
        found.seconds.append(time.monotonic() - begun)

    def _sealing(self, each: Exchange) -> bytes | None:
        return self.identities.of(each.destination).sealing_public.read_bytes() if each.relays else None

    @contextmanager
    def _attack(self, found: Round) -> Iterator[None]:
        namespace = self.lab.namespace(self.attacker.id)
        plan = self._plan(found)
        self.scope.admit_connections(namespace, [ip_address(each.address) for each in plan.targets])
        if plan.kind is Kind.HALF_OPEN:
            namespace.run(["nft", "-f", "-"], timeout=10, input=_NO_RESETS)
        process: subprocess.Popen[str] = namespace.popen(
            [sys.executable, "-m", "conformance.starvation.attacker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None  # noqa: S101 - narrowed: it was asked for
        process.stdin.write(plan.written())
        process.stdin.flush()
        try:
            yield
        finally:
            said, _ = process.communicate(timeout=_END_SECONDS)
            if plan.kind is Kind.HALF_OPEN:
                namespace.run(["nft", "delete", "table", "inet", "starvation"], timeout=10)
        if process.returncode:
            raise RuntimeError(f"the attacker has failed: exit code {process.returncode}")
        found.attacked = json.loads(said)

    def _plan(self, found: Round) -> Plan:
        """Return what the attacker does: everything to the first server, in the families of the round."""
        theirs = self._exchanges(self.attacker, found.flow)
        aims = [each for each in theirs if each.destination.id == theirs[0].destination.id]
        own = {address.version: str(address) for address in self.attacker.interface.addresses}
        targets = [
            Target(own[each.address.version], str(each.address), each.port, each.name)
            for each in aims
            if each.address.version in found.families
        ]
        return Plan(
            kind=found.kind,
            targets=tuple(targets),
            identity=str(self.identities.of(self.attacker).directory),
            assurance=aims[0].flow.assurance,
            alpn=aims[0].alpn,
            sessions=self.sessions,
            device=self.attacker.interface.name,
            macs=self._macs(),
        )

    def _macs(self) -> str:
        """Return the MAC addresses of frames from the attacker to its firewall."""
        segment = self.attacker.interface.segment
        gateway = next(
            interface
            for firewall in self.lab.topology.firewalls.values()
            for interface in firewall.interfaces
            if interface.segment == segment
        )
        return (gateway.mac + self.attacker.interface.mac).replace(":", "")

    def _counters(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for firewall in self.lab.firewalls:
            found.update(self.lab.counters(firewall))
        return found

    def _overflown(self, served: Sequence[Exchange]) -> int:
        """Return what accept queues had no room for (ListenOverflows), over all servers."""
        total = 0
        for server in {each.destination.id for each in served}:
            said = self.lab.namespace(server).run(["cat", _CONNECTIONS_FILE], timeout=10).stdout
            names, values = (line.split() for line in said.splitlines()[:2])
            total += int(values[names.index("ListenOverflows")])
        return total

    @contextmanager
    def _arrivals(self, servers: Collection[str]) -> Iterator[_Arrivals]:
        with ExitStack() as stack:
            watched = []
            for server in servers:
                device = self.lab.topology.nodes[server].interface.name
                watched.append(stack.enter_context(self.lab.namespace(server).call(PacketSocket(device))))
            yield _Arrivals(watched, {*self.neighbour.interface.addresses})


class _Arrivals:
    """Whence connections have come to the wire of a server."""

    def __init__(self, watched: Sequence[socket.socket], clients: Collection[Address]) -> None:
        self._watched = watched
        self._clients = clients
        self._found: set[Reached] = set()
        self._lock = threading.Lock()

    def has(self, end: Reached) -> bool:
        """Tell whether a SYN has come from there."""
        with self._lock:
            for each in self._watched:
                for frame in received(each):
                    self._take(frame)
            return end in self._found

    def _take(self, frame: bytes) -> None:
        family = {0x0800: 4, 0x86DD: 6}.get(int.from_bytes(frame[12:14], "big"))
        if family is None:
            return
        protocol, begin, end, payload = (23, 26, 30, 34) if family == 4 else (20, 22, 38, 54)
        if frame[protocol] == _TCP and frame[payload + 13] & _SYN_ACK == _SYN:
            client = ip_address(frame[begin:end])
            if client in self._clients:
                (port,) = struct.unpack_from("!H", frame, payload)
                self._found.add((client, port))
