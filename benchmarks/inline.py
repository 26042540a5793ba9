"""Throughput and connections through two firewalls: bare kernel, rules, rules and an inline engine, relays.

    .venv/bin/python benchmarks/inline.py

One client and one server speak TLS with both certificates, offloads off, congestion control the same, all in one run on
this machine; what counts are the ratios to the bare kernel. The client's and the server's own work is in all of them.
With relays each of the two firewalls decrypts and encrypts everything again, on the same two cores.
"""

from __future__ import annotations

import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from conformance.application.book import Exchange, exchanges
from conformance.application.tls import context
from conformance.lab import Lab
from conformance.lab.rooted import Root
from conformance.pki import Identities, issue_identities
from netpolicy.build import compile_topology
from netpolicy.intent.routing import Routing
from netpolicy.processors import Processors
from netpolicy.topology.model import Assurance
from tests.lab.small import AMPLE, PORT, RELAYABLE, small_topology

SECONDS, ROUNDS = 4.0, 3
"""Of each measurement; the rounds take turns, and medians are printed, since a machine has its moods."""
_CONTROL = "reno"
"""RFC 5681: it does not pace, and a namespace may choose it. Cubic, Debian's default, only the host may choose here."""
_SAID = b"JUKI"
_CHUNK = _SAID + bytes((1 << 16) - 4)


@dataclass(frozen=True, slots=True)
class Figures:
    """What one way let through."""

    gigabits: float
    """Each second, of application data."""
    connections: float
    """Each second, one after the other."""


def main() -> int:
    """Measure all, and print them."""
    root = Root.find()
    if root is None:
        print("inline: there is no root of the inline engine: make setup", file=sys.stderr)
        return 3
    inspected = small_topology("benchmark", Assurance.INSPECT, AMPLE)
    relayed = small_topology("benchmark", Assurance.TERMINATE, RELAYABLE)
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        identities = issue_identities(inspected, work / "identities", now=datetime.now(UTC))
        compile_topology(relayed, work / "relayed")
        compile_topology(inspected, work / "build")
        for engine in (work / "build/core/suricata").glob("engine-*.yaml"):
            engine.unlink()  # one engine on the way, as each firewall has one
        rounds = [
            {
                "bare": _measured(Lab(inspected, work / "build"), identities, bare=True),
                "nft": _measured(Lab(inspected, work / "build"), identities),
                "inline": _measured(Lab(inspected, work / "build", root), identities),
                "terminate": _measured(Lab(relayed, work / "relayed", root, inline=False), identities),
            }
            for _ in range(ROUNDS)
        ]
    found = {name: _median([each[name] for each in rounds]) for name in rounds[0]}
    base = found["bare"]
    print(f"{'':10}{'Gbit/s':>8}{'ratio':>8}{'conn/s':>10}{'ratio':>8}")
    for name, each in found.items():
        ratios = (each.gigabits / base.gigabits, each.connections / base.connections)
        print(f"{name:10}{each.gigabits:8.2f}{ratios[0]:8.2f}{each.connections:10.0f}{ratios[1]:8.2f}")
    return 0


def _median(figures: list[Figures]) -> Figures:
    return Figures(median(each.gigabits for each in figures), median(each.connections for each in figures))


def _measured(prepared: Lab, identities: Identities, *, bare: bool = False) -> Figures:
    with prepared as lab:
        for name in ("alpha", "gamma", *lab.topology.firewalls):
            # BBR, the default of some machines, paces by what it takes the way to bear: it would be measured, not that.
            _do(lab, name, "sysctl", "-qw", f"net.ipv4.tcp_congestion_control={_CONTROL}")
        if bare:
            for firewall in lab.topology.firewalls:
                _do(lab, firewall, "nft", "flush", "ruleset")
        lab.divide(Processors.here())
        lab.pin(identities.fingerprints(lab.topology.nodes.values()))
        lab.start_relays(identities.directory)
        exchange = next(exchanges(lab.topology, Routing(lab.topology)))
        with _serving(lab, identities, exchange):
            return Figures(_throughput(lab, identities, exchange), _connections(lab, identities, exchange))


def _do(lab: Lab, name: str, *argv: str) -> None:
    lab.namespace(name).run(argv, timeout=10.0).check_returncode()


def _context(identities: Identities, exchange: Exchange, *, server: bool) -> ssl.SSLContext:
    end = exchange.destination if server else exchange.source
    return context(identities.of(end), frozenset({exchange.flow.assurance}), exchange.alpn, server=server)


@contextmanager
def _serving(lab: Lab, identities: Identities, exchange: Exchange) -> Iterator[None]:
    ours = _context(identities, exchange, server=True)
    listening = lab.namespace("gamma").call(lambda: socket.create_server(("", PORT), backlog=512))

    def serve() -> None:
        with suppress(OSError):  # the listening socket was closed: the end
            while True:
                plain, _ = listening.accept()
                with suppress(OSError), ours.wrap_socket(plain, server_side=True) as connection:
                    connection.recv(len(_CHUNK))
                    connection.sendall(_SAID)
                    while connection.recv(len(_CHUNK)):
                        pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def _connect(lab: Lab, ours: ssl.SSLContext, exchange: Exchange) -> ssl.SSLSocket:
    target = (str(exchange.address), exchange.port)
    plain = lab.namespace("alpha").call(lambda: socket.create_connection(target, timeout=10.0))
    return ours.wrap_socket(plain, server_hostname=exchange.name)


def _throughput(lab: Lab, identities: Identities, exchange: Exchange) -> float:
    ours = _context(identities, exchange, server=False)
    with _connect(lab, ours, exchange) as connection:
        sent, begun = 0, time.monotonic()
        while time.monotonic() - begun < SECONDS:
            connection.sendall(_CHUNK)
            sent += len(_CHUNK)
        taken = time.monotonic() - begun
        # Closed with something unread it would be reset, which who stands between may take for a stranger's.
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(len(_CHUNK)):
            pass
        return sent * 8 / taken / 1e9


def _connections(lab: Lab, identities: Identities, exchange: Exchange) -> float:
    ours = _context(identities, exchange, server=False)
    count, begun = 0, time.monotonic()
    while time.monotonic() - begun < SECONDS:
        with _connect(lab, ours, exchange) as connection:
            connection.sendall(_SAID)
            # A relay has finished the client's handshake before it has begun its own with the server.
            connection.recv(len(_SAID))
        count += 1
    return count / (time.monotonic() - begun)


if __name__ == "__main__":
    sys.exit(main())
