"""Throughput and connections through one firewall: bare kernel, its rules, its rules behind an inline engine.

    .venv/bin/python benchmarks/inline.py

One client and one server speak TLS 1.2 with both certificates, offloads off, all in one run on this machine; what
counts are the ratios to the bare kernel. The client's and the server's own work is in all three.
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
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from conformance.application.tls import context
from conformance.lab import Lab
from conformance.lab.rooted import Root
from conformance.pki import Identities, issue_identities
from netpolicy.build import compile_topology
from netpolicy.topology.model import Assurance, Topology
from tests.lab.small import PORT, small_topology

SECONDS, ROUNDS = 4.0, 3
"""Of each measurement; the rounds take turns, and medians are printed, since a machine has its moods."""
_INSPECT = frozenset({Assurance.INSPECT})
_CHUNK = bytes(1 << 16)


@dataclass(frozen=True, slots=True)
class Figures:
    """What one way let through."""

    gigabits: float
    """Each second, of application data."""
    connections: float
    """Each second, one after the other."""


def main() -> int:
    """Measure all three, and print them."""
    root = Root.find()
    if root is None:
        print("inline: there is no root of the inline engine: make setup", file=sys.stderr)
        return 3
    topology = _topology()
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        identities = issue_identities(topology, work / "identities", now=datetime.now(UTC))
        compile_topology(topology, work / "build")
        for engine in (work / "build/core/suricata").glob("engine-*.yaml"):
            engine.unlink()  # one engine on the way, as each firewall has one
        rounds = [
            {
                "bare": _measured(topology, work, identities, None, bare=True),
                "nft": _measured(topology, work, identities, None),
                "inline": _measured(topology, work, identities, root),
            }
            for _ in range(ROUNDS)
        ]
    found = {name: _median([each[name] for each in rounds]) for name in rounds[0]}
    base = found["bare"]
    print(f"{'':8}{'Gbit/s':>8}{'ratio':>8}{'conn/s':>10}{'ratio':>8}")
    for name, each in found.items():
        ratios = (each.gigabits / base.gigabits, each.connections / base.connections)
        print(f"{name:8}{each.gigabits:8.2f}{ratios[0]:8.2f}{each.connections:10.0f}{ratios[1]:8.2f}")
    return 0


def _median(figures: list[Figures]) -> Figures:
    return Figures(median(each.gigabits for each in figures), median(each.connections for each in figures))


def _topology() -> Topology:
    found = small_topology("benchmark")
    flow = replace(found.flows["notice"], assurance=Assurance.INSPECT)
    return replace(found, flows={flow.id: flow})


def _measured(
    topology: Topology, work: Path, identities: Identities, root: Root | None, *, bare: bool = False
) -> Figures:
    with Lab(topology, work / "build", root) as lab:
        if bare:
            for firewall in topology.firewalls:
                lab.namespace(firewall).run(["nft", "flush", "ruleset"], timeout=10.0)
        if root is not None:
            lab.pin(identities.fingerprints(topology.nodes.values()))
        with _serving(lab, identities):
            return Figures(_throughput(lab, identities), _connections(lab, identities))


@contextmanager
def _serving(lab: Lab, identities: Identities) -> Iterator[None]:
    gamma = lab.topology.nodes["gamma"]
    ours = context(identities.of(gamma), _INSPECT, "app/1", server=True)
    listening = lab.namespace("gamma").call(lambda: socket.create_server(("", PORT), backlog=512))

    def serve() -> None:
        with suppress(OSError):  # the listening socket was closed: the end
            while True:
                plain, _ = listening.accept()
                with suppress(OSError), ours.wrap_socket(plain, server_side=True) as connection:
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


def _connect(lab: Lab, ours: ssl.SSLContext) -> ssl.SSLSocket:
    target = (str(lab.topology.nodes["gamma"].interface.addresses[0]), PORT)
    plain = lab.namespace("alpha").call(lambda: socket.create_connection(target, timeout=10.0))
    return ours.wrap_socket(plain, server_hostname=f"gamma.{lab.topology.id}.internal")


def _throughput(lab: Lab, identities: Identities) -> float:
    ours = context(identities.of(lab.topology.nodes["alpha"]), _INSPECT, "app/1", server=False)
    with _connect(lab, ours) as connection:
        sent, begun = 0, time.monotonic()
        while time.monotonic() - begun < SECONDS:
            connection.sendall(_CHUNK)
            sent += len(_CHUNK)
        return sent * 8 / (time.monotonic() - begun) / 1e9


def _connections(lab: Lab, identities: Identities) -> float:
    ours = context(identities.of(lab.topology.nodes["alpha"]), _INSPECT, "app/1", server=False)
    count, begun = 0, time.monotonic()
    while time.monotonic() - begun < SECONDS:
        with _connect(lab, ours) as connection:
            connection.sendall(b"x")
        count += 1
    return count / (time.monotonic() - begun)


if __name__ == "__main__":
    sys.exit(main())
