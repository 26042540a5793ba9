"""Rulesets replaced under a flood of forbidden packets while permitted exchanges go on: what leaks, what is lost."""

from __future__ import annotations

import ctypes
import enum
import selectors
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from conformance.lab import Lab
from netpolicy.intent.routing import Hop, Routing
from netpolicy.topology.ends import flow_groups
from netpolicy.topology.model import Assurance, Node, PortRange

_SEQUENCE = 0x6E706F6C
"""The TCP sequence number by which a flooded packet is known again."""
_FORBIDDEN_PORT = 25
_ETHERNET_IPV4_TCP_SEQUENCE = 14 + 20 + 4
_PACKETS, _SECONDS = 50_000_000, 600.0
_PATIENCE = 10.0
"""Seconds after which an exchange is lost."""

_PAUSE, _RENEWAL = 0.002, 0.1
"""Seconds between two questions, and between two new connections."""
_QUESTION = b"is the way open? " * 4

_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_IGNORE_OUTGOING, _SO_ATTACH_FILTER = 263, 6, 23, 26


class Method(enum.StrEnum):
    """How a ruleset is replaced."""

    ATOMIC = "netpolicy"
    """One transaction, explicit final drops, the guard table behind it: the files of the build."""
    POLICY_ONLY = "policy only"
    """One transaction, but the chain ends with its policy, and there is no guard: the textbook."""
    FLUSH_AND_LOAD = "flush, then load"
    """Two commands, as many service scripts do."""


@dataclass(slots=True)
class Figures:
    """What was measured."""

    method: Method
    reloads: int = 0
    reload_ms: float = 0.0
    """Mean time of one replacement, process start included."""
    flooded: int = 0
    """Forbidden packets sent."""
    packets_per_second: float = 0.0
    leaked: int = 0
    """Forbidden packets that left the firewall on the other side."""
    exchanges: int = 0
    """Complete questions and answers of the permitted flow."""
    lost: int = 0
    """Connections that failed or did not answer in time."""


@dataclass(frozen=True, slots=True)
class _Case:
    """A permitted pair and the firewall that it crosses first."""

    source: Node
    destination: Node
    port: int
    hop: Hop


def measure(lab: Lab, method: Method, reloads: int) -> Figures:
    """Replace the ruleset of one firewall `reloads` times under load; leave it as the build has it.

    Raises:
        ValueError: No flow that is inspected and has no service hours joins two nodes over a firewall in IPv4.
        LabError: The firewall refuses a ruleset.

    """
    case = _case(lab)
    figures = Figures(method)
    with tempfile.TemporaryDirectory() as directory:
        steps = _steps(lab, case, method, Path(directory))
        for step in steps:
            lab.load(case.hop.firewall, step)
        with _leaks(lab, case, figures), _exchanges(lab, case, figures), _flood(lab, case, figures):
            start = time.monotonic()
            for _ in range(reloads):
                for step in steps:
                    lab.load(case.hop.firewall, step)
            figures.reloads = reloads
            figures.reload_ms = (time.monotonic() - start) * 1000 / max(reloads, 1)
    for name in ("guard.nft", "nftables.nft"):
        lab.load(case.hop.firewall, lab.build / case.hop.firewall / name)
    return figures


def _case(lab: Lab) -> _Case:
    topology = lab.topology
    routing = Routing(topology)
    for flow in topology.effective_flows():
        if flow.limits.windows or flow.assurance is Assurance.TERMINATE:
            continue
        for group in flow_groups(topology, flow):
            for source, destination in group.pairs():
                if not isinstance(destination, Node):
                    continue
                path = routing.path(source.interface.segment, destination.interface.segment)
                if path and _ipv4(source) and _ipv4(destination):
                    ports: tuple[PortRange, ...] = topology.services[flow.service].ports
                    return _Case(source, destination, ports[0].first, path[0])
    raise ValueError("no flow that is inspected and has no service hours joins two nodes over a firewall in IPv4")


def _ipv4(node: Node) -> str | None:
    return next((str(address) for address in node.interface.addresses if address.version == 4), None)


def _steps(lab: Lab, case: _Case, method: Method, directory: Path) -> list[Path]:
    """Return the files that one replacement loads one after the other."""
    ours = lab.build / case.hop.firewall / "nftables.nft"
    if method is Method.ATOMIC:
        return [ours]
    no_guard = "table inet netpolicy_guard\ndelete table inet netpolicy_guard\n"
    if method is Method.FLUSH_AND_LOAD:
        flush = directory / "flush.nft"
        flush.write_text("flush ruleset\n")
        return [flush, ours]
    permitted = f"ip saddr {_ipv4(case.source)} ip daddr {_ipv4(case.destination)} tcp dport {case.port}"
    textbook = directory / "textbook.nft"
    textbook.write_text(
        f"{no_guard}table inet netpolicy\ndelete table inet netpolicy\ntable inet netpolicy {{\n"
        "chain forward { type filter hook forward priority 0; policy drop;\n"
        f"ct state established,related accept\n{permitted} accept\n}}\n}}\n"
    )
    return [textbook]


@contextmanager
def _flood(lab: Lab, case: _Case, figures: Figures) -> Iterator[None]:
    device = lab.wire_port(case.hop.firewall, case.hop.in_interface)
    arguments = [device, _frame(lab, case).hex(), str(_PACKETS), str(_SECONDS)]
    process = lab.wire.popen(
        [sys.executable, "-m", "conformance.flood", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    start = time.monotonic()
    try:
        yield
    finally:
        elapsed = time.monotonic() - start
        sent, _ = process.communicate(timeout=_PATIENCE + 10)
        figures.flooded = int(sent)
        figures.packets_per_second = figures.flooded / elapsed


def _frame(lab: Lab, case: _Case) -> bytes:
    from scapy.layers.inet import IP, TCP  # noqa: PLC0415 - half a second that only this needs
    from scapy.layers.l2 import Ether  # noqa: PLC0415

    inside = Routing(lab.topology).interface(case.hop.firewall, case.hop.in_interface)
    packet = (
        Ether(dst=inside.mac, src=case.source.interface.mac)
        / IP(src=_ipv4(case.source), dst=_ipv4(case.destination))
        / TCP(sport=40000, dport=_FORBIDDEN_PORT, flags="S", seq=_SEQUENCE)
    )
    return bytes(packet)


@contextmanager
def _leaks(lab: Lab, case: _Case, figures: Figures) -> Iterator[None]:
    """Count flooded packets that leave the firewall; the kernel filters and counts, so none can be missed."""
    device = lab.wire_port(case.hop.firewall, case.hop.out_interface)
    with lab.wire.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)) as capture:
        program = b"".join(
            struct.pack("HBBI", *instruction)
            for instruction in (
                (0x20, 0, 0, _ETHERNET_IPV4_TCP_SEQUENCE),  # ldw [38]
                (0x15, 0, 1, _SEQUENCE),  # jeq
                (0x06, 0, 0, 0xFFFF),  # ret: keep
                (0x06, 0, 0, 0),  # ret: ignore
            )
        )
        buffer = ctypes.create_string_buffer(program)
        sock_fprog = struct.pack("HL", len(program) // 8, ctypes.addressof(buffer))
        capture.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, sock_fprog)
        capture.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        # ETH_P_ALL taps come before the bridge takes the frame; a tap of one protocol would come after and see nothing.
        capture.bind((device, _ETH_P_ALL))
        capture.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        yield
        figures.leaked, _ = struct.unpack("II", capture.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))


@dataclass(slots=True)
class _Exchanging:
    last: threading.Event = field(default_factory=threading.Event)
    """The question that is under way is the last one."""
    over: threading.Event = field(default_factory=threading.Event)
    """Nobody asks any more."""
    done: int = 0
    lost: int = 0


@contextmanager
def _exchanges(lab: Lab, case: _Case, figures: Figures) -> Iterator[None]:
    """Ask and answer over one long-lived connection, and every tenth of a second over a new one."""
    address = (_ipv4(case.destination) or "", case.port)
    state = _Exchanging()

    def listen() -> socket.socket:
        return socket.create_server(address, reuse_port=False, backlog=64)

    with lab.namespace(case.destination.id).call(listen) as server:
        answering = threading.Thread(target=_answer, args=(server, state), daemon=True)
        asking = threading.Thread(
            target=lab.namespace(case.source.id).call, args=(lambda: _ask(address, state),), daemon=True
        )
        answering.start()
        asking.start()
        try:
            yield
        finally:
            state.last.set()
            asking.join(2 * _PATIENCE)
            state.over.set()
            answering.join(2 * _PATIENCE)
            figures.exchanges, figures.lost = state.done, state.lost


def _ask(address: tuple[str, int], state: _Exchanging) -> None:
    """Ask until told to stop; a connection that fails is lost, and another one takes its place."""
    steady: socket.socket | None = None
    renewed = 0.0
    while not state.last.is_set():
        try:
            steady = steady or socket.create_connection(address, timeout=_PATIENCE)
            _question(steady, state)
            if time.monotonic() - renewed > _RENEWAL:
                renewed = time.monotonic()
                with socket.create_connection(address, timeout=_PATIENCE) as fresh:
                    _question(fresh, state)
        except OSError:
            state.lost += 1
            if steady is not None:
                steady.close()
            steady = None
        time.sleep(_PAUSE)
    if steady is not None:
        steady.close()


def _question(connection: socket.socket, state: _Exchanging) -> None:
    connection.sendall(_QUESTION)
    answer = b""
    while len(answer) < len(_QUESTION):
        piece = connection.recv(len(_QUESTION) - len(answer))
        if not piece:
            raise ConnectionError("the connection ended before its answer")
        answer += piece
    if answer != _QUESTION:
        raise ConnectionError("the answer is not the one to the question")
    state.done += 1


def _answer(server: socket.socket, state: _Exchanging) -> None:
    """Echo on every connection until told to stop."""
    with selectors.DefaultSelector() as selector:
        server.setblocking(False)
        selector.register(server, selectors.EVENT_READ)
        while not state.over.is_set():
            for key, _ in selector.select(timeout=0.1):
                if key.fileobj is server:
                    connection, _peer = server.accept()
                    selector.register(connection, selectors.EVENT_READ)
                    continue
                connection = cast("socket.socket", key.fileobj)
                question = connection.recv(4096)
                if question:
                    connection.sendall(question)
                else:
                    selector.unregister(connection)
                    connection.close()
        for key in list(selector.get_map().values()):
            if key.fileobj is not server:
                cast("socket.socket", key.fileobj).close()
