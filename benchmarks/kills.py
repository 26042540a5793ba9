"""Kill -9 of engines and relays in the middle of a transfer: nothing may pass before they are back.

    .venv/bin/python benchmarks/kills.py [KILLS]

A small network with a flow that is inspected, then one that is relayed.  Before each kill a client has finished its
handshake, and its connection has come as far as the server; while the process is gone the client goes on sending and
new ones come; after its return a sentinel, a message and its answer, must pass.  Segments are counted on the server's
wire: in all, and while it is gone.
"""

from __future__ import annotations

import socket
import ssl
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from conformance.application.book import Exchange, exchanges
from conformance.application.connection import Server, ask
from conformance.application.message import MessageError, request_for
from conformance.application.serve import serve_lab
from conformance.application.tls import PeerError, Terms, context
from conformance.lab import Lab
from conformance.lab.engine import Engine
from conformance.lab.relay import Relay
from conformance.lab.rooted import Root
from conformance.pki import Identities, issue_identities
from netpolicy.build import compile_topology
from netpolicy.intent.routing import Routing
from netpolicy.topology.model import Assurance
from tests.lab.small import RELAYABLE, small_topology

KILLS = 50
_GONE = 0.4
"""Seconds for which it stays gone."""
_UNDER_WAY = 0.05
"""Seconds in which what was beyond it at the kill arrives."""
_BETWEEN = 0.01
"""Seconds between new ones: 2,000 of them in 50 kills use each port of the client once at most."""
_ARRIVED = 5.0
"""Seconds after which a transfer that the server has not seen is an error."""
_ETH_P_ALL = 3


@dataclass(slots=True)
class Figures:
    """What was seen on the server's wire."""

    segments: int = 0
    """In all."""
    passed: int = 0
    """While it was gone."""
    sentinels: int = 0


def main(argv: list[str]) -> int:
    """Measure both, and print them; 1 if anything passed or did not come back."""
    kills = int(argv[0]) if argv else KILLS
    root = Root.find()
    if root is None:
        print("kills: there is no root of engines and relays: make setup", file=sys.stderr)
        return 3
    print(f"{'':10}{'kills':>6}{'segments':>10}{'passed while gone':>19}{'sentinels after':>17}")
    whole = True
    for assurance, name in ((Assurance.INSPECT, "Suricata"), (Assurance.TERMINATE, "HAProxy")):
        found = _measured(root, assurance, kills)
        print(f"{name:10}{kills:6}{found.segments:10}{found.passed:19}{found.sentinels:17}")
        whole = whole and found.segments > 0 and (found.passed, found.sentinels) == (0, kills)
    return 0 if whole else 1


def _measured(root: Root, assurance: Assurance, kills: int) -> Figures:
    topology = small_topology("kills", assurance, RELAYABLE)
    inspected = assurance is Assurance.INSPECT
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        compile_topology(topology, work / "build")
        identities = issue_identities(topology, work / "identities", now=datetime.now(UTC))
        with Lab(topology, work / "build", root, inline=inspected) as lab:
            lab.pin(identities.fingerprints(topology.nodes.values()))
            lab.start_relays(identities.directory)
            victim = next(iter(lab.engines.values())) if inspected else lab.relays["core"]
            exchange = next(exchanges(topology, Routing(topology)))
            with serve_lab(lab, identities):
                return _kill(lab, identities, exchange, victim, kills)


def _kill(lab: Lab, identities: Identities, exchange: Exchange, victim: Engine | Relay, kills: int) -> Figures:
    wire, found = lab.wire_port("gamma", "eth0"), Figures()
    with lab.wire.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)) as tap:
        tap.bind((wire, _ETH_P_ALL))
        tap.setblocking(False)
        for _ in range(kills):
            with _transferring(lab, identities, exchange) as client:
                client.settimeout(0.1)
                client.sendall(b"JUKI")
                found.segments += _first(tap, exchange.port)
                victim.kill()
                time.sleep(_UNDER_WAY)
                found.segments += _count(tap, exchange.port)
                end = time.monotonic() + _GONE
                while time.monotonic() < end:
                    with suppress(OSError):
                        client.sendall(b"JUKI more of it")
                    with suppress(OSError):
                        _connect(lab, exchange, 0.05).close()
                    time.sleep(_BETWEEN)
                found.passed += _count(tap, exchange.port)
            victim.start()
            found.sentinels += _sentinel(lab, identities, exchange)
            found.segments += _count(tap, exchange.port)
    return found


def _transferring(lab: Lab, identities: Identities, exchange: Exchange) -> ssl.SSLSocket:
    own = identities.of(exchange.source)
    ours = context(own, frozenset({exchange.flow.assurance}), exchange.alpn, server=False)
    return ours.wrap_socket(_connect(lab, exchange, 5.0), server_hostname=exchange.name)


def _sentinel(lab: Lab, identities: Identities, exchange: Exchange) -> bool:
    sealing = identities.of(exchange.destination).sealing_public.read_bytes() if exchange.relays else None
    with suppress(OSError, PeerError, MessageError):
        ask(
            _connect(lab, exchange, 5.0),
            identities.of(exchange.source),
            request_for(exchange.flow.service, exchange.flow.affair),
            server=Server(exchange.uri, exchange.name, sealing, exchange.server_uri),
            terms=Terms.of(exchange.flow, exchange.alpn),
        )
        return True
    return False


def _connect(lab: Lab, exchange: Exchange, seconds: float) -> socket.socket:
    target = (str(exchange.address), exchange.port)
    return lab.namespace(exchange.source.id).call(lambda: socket.create_connection(target, timeout=seconds))


def _first(tap: socket.socket, port: int) -> int:
    """Wait for the first segments that reach the server; return how many there were."""
    end = time.monotonic() + _ARRIVED
    while time.monotonic() < end:
        if count := _count(tap, port):
            return count
        time.sleep(_BETWEEN)
    raise TimeoutError(f"the transfer did not reach the server within {_ARRIVED:.0f} s")


def _count(tap: socket.socket, port: int) -> int:
    """Return the TCP segments (IPv4) to the server's port since it was asked last."""
    count = 0
    with suppress(BlockingIOError):
        while True:
            frame, (_, _, kind, *_) = tap.recvfrom(256)
            tcp = frame[12:14] == b"\x08\0" and frame[23] == socket.IPPROTO_TCP
            count += tcp and kind == socket.PACKET_OUTGOING and frame[36:38] == port.to_bytes(2, "big")
    return count


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
