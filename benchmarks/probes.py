"""How many verdicts a second: frozen frames in batches, against Scapy building and sending each.

Both send the same SYN to the same firewall of an isolated lab.  Ours are also captured at arrival, captured on the way
out, and held against the firewall's counters; Scapy's are only sent.

    make bench            or        python benchmarks/probes.py [--probes 20000] [--peer-probes 2000]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.sendrecv import sendp

from conformance.expect import Expectation
from conformance.lab import Lab
from conformance.lab.scope import Scope
from conformance.outcome import Status
from conformance.probe.batch import FirewallProber, Probe
from conformance.probe.shape import Shape
from conformance.probe.wire import wired
from conformance.results import Results
from netpolicy.build import compile_topology
from netpolicy.intent.routing import Routing
from netpolicy.topology.load import load_topology
from netpolicy.topology.model import Topology

_FIREWALL = "tokyo-fw"
_SOURCE, _DESTINATION = "shinagawa-cs", "tokyo-server"


def main() -> int:
    """Run the benchmark; return 1 if any probe had no verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--probes", type=int, default=20000)
    parser.add_argument("--peer-probes", type=int, default=2000)
    parser.add_argument("--topology", type=Path, default=Path("topology.yaml"))
    args = parser.parse_args()
    topology = load_topology(args.topology).topology
    with tempfile.TemporaryDirectory() as directory:
        build = Path(directory) / "build"
        compile_topology(topology, build)
        with Lab(topology, build) as lab, lab.isolated():
            ours, passed = _ours(lab, topology, args.probes)
            theirs = _scapy(lab, topology, args.peer_probes)
    print(f"netpolicy   {args.probes:>6} probes sent, captured and judged: {ours:>8.0f}/s")
    print(f"scapy       {args.peer_probes:>6} probes sent:                      {theirs:>8.0f}/s")
    print(f"ratio       {ours / theirs:.0f}")
    return int(passed != args.probes)


def _ours(lab: Lab, topology: Topology, count: int) -> tuple[float, int]:
    """Return verdicts per second, and how many there were."""
    expectation = Expectation(topology, Routing(topology), datetime.now(UTC))
    firewall, results = topology.firewalls[_FIREWALL], Results()
    source, destination = topology.nodes[_SOURCE], topology.nodes[_DESTINATION]
    probes = [
        Probe(
            stage="matrix",
            source=source.id,
            destination=destination.id,
            label="benchmark",
            shape=Shape.SYN,
            ingress="line",
            source_address=source.interface.addresses[0],
            destination_address=destination.interface.addresses[0],
            port=20000 + number,
        )
        for number in range(count)
    ]
    with wired(lab, firewall, Scope(lab)) as wire:
        judge, permits = expectation.judge(_FIREWALL), expectation.permits[_FIREWALL]
        prober = FirewallProber(lab, topology, judge, wire, results, permits)
        begun = time.perf_counter()
        prober.run(probes)
        elapsed = time.perf_counter() - begun
    return count / elapsed, results.count(Status.PASS)


def _scapy(lab: Lab, topology: Topology, count: int) -> float:
    """Return frames per second that Scapy builds and sends."""
    port = lab.wire_port(_FIREWALL, "line")
    mac = next(each.mac for each in topology.firewalls[_FIREWALL].interfaces if each.name == "line")
    source, destination = (str(topology.nodes[name].interface.addresses[0]) for name in (_SOURCE, _DESTINATION))

    def send() -> float:
        begun = time.perf_counter()
        layers = Ether(src="02:00:00:00:00:01", dst=mac) / IP(src=source, dst=destination)
        sendp([layers / TCP(dport=20000 + number) for number in range(count)], iface=port, verbose=False)
        return time.perf_counter() - begun

    return count / lab.wire.call(send)


if __name__ == "__main__":
    sys.exit(main())
