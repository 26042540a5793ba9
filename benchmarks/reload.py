"""Replace a firewall's ruleset again and again under a flood of forbidden packets, and count what passes.

Prints, for our atomic reload and for the two peers that administrators use instead, the packets that leaked, the
permitted exchanges that were lost, and the cost of a reload.  The peers are the positive control as well: a run in
which they leak nothing has not measured anything, and says so.

    make bench            or        python benchmarks/reload.py [--reloads 1000] [--topology topology.yaml]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from conformance.lab import Lab
from conformance.reload import Figures, Method, measure
from netpolicy.build import compile_topology
from netpolicy.topology.load import load_topology


def main() -> int:
    """Run the benchmark; return 1 if our reload leaked or lost anything, or if no peer leaked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reloads", type=int, default=1000)
    parser.add_argument("--peer-reloads", type=int, default=200)
    parser.add_argument("--topology", type=Path, default=Path("topology.yaml"))
    args = parser.parse_args()
    topology = load_topology(args.topology).topology
    with tempfile.TemporaryDirectory() as directory:
        build = Path(directory) / "build"
        compile_topology(topology, build)
        with Lab(topology, build) as lab:
            ours = measure(lab, Method.ATOMIC, args.reloads)
            peers = [measure(lab, method, args.peer_reloads) for method in Method if method is not Method.ATOMIC]
    for figures in (ours, *peers):
        print(line(figures))
    blind = not any(figures.leaked for figures in peers)
    if blind:
        print("no peer leaked: the flood was too thin for this measurement to mean anything", file=sys.stderr)
    return int(blind or ours.leaked > 0 or ours.lost > 0)


def line(figures: Figures) -> str:
    """Return one method's figures for a person."""
    share = figures.leaked / figures.flooded if figures.flooded else 0.0
    return (
        f"{figures.method:<16} {figures.reloads:>5} reloads, {figures.reload_ms:6.1f} ms each | "
        f"flood {figures.flooded:>9} packets at {figures.packets_per_second:>7.0f}/s, "
        f"leaked {figures.leaked:>7} ({share:.4%}) | "
        f"exchanges {figures.exchanges:>6}, lost {figures.lost}"
    )


if __name__ == "__main__":
    sys.exit(main())
