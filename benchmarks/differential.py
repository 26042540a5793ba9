"""Random frames of a permitted conversation through a real engine and a real kernel: no byte comes out unseen.

    .venv/bin/python benchmarks/differential.py --seed 1 --frames 1000000

Ends with 1 if any byte of what must not be said came out at the far side; prints what was tried, and what stopped it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from conformance.frames.differential import run_differential
from conformance.frames.run import Line
from conformance.lab import Lab
from conformance.lab.rooted import Root, compile_for
from conformance.lab.scope import Scope
from tests.lab.small import AMPLE, PORT, of_family, small_topology


def main() -> int:
    """Run it, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--family", type=int, choices=(4, 6), help="of a network that has this one alone")
    args = parser.parse_args()
    root = Root.find()
    if root is None:
        print("differential: there is no root of the inline engine: make setup", file=sys.stderr)
        return 3
    topology = small_topology("differential" if args.family is None else f"differential-{args.family}", limits=AMPLE)
    if args.family is not None:
        topology = of_family(topology, args.family)
    with tempfile.TemporaryDirectory() as directory:
        build = Path(directory) / "build"
        compile_for(root, topology, build)
        nodes = [topology.nodes[name] for name in ("alpha", "gamma")]
        lines = [
            Line(nodes[0], nodes[1], (ends[0], ends[1]), PORT, "core", "wan")
            for ends in zip(*(node.interface.addresses for node in nodes), strict=True)
        ]
        with Lab(topology, build, root) as lab, lab.isolated():
            scope = Scope(lab, packets=4 * args.frames + 100_000)
            found = run_differential(lab, scope, lines, seed=args.seed, frames=args.frames)
    rate = found.frames / found.seconds
    print(f"seed {found.seed}: {found.frames:,} frames on {found.connections:,} connections")
    print(f"{found.seconds:.0f} s, {rate:,.0f} frames/s; {len(found.unseen)} frames came out with unseen bytes")
    print(f"{found.astray:,} came out within a ClientHello's bounds where no TCP takes them for what follows")
    for title, counted in (("changed first", found.kinds), ("stopped by", found.doors)):
        print(f"{title}: " + ", ".join(f"{name} {count:,}" for name, count in counted.most_common() if count))
    for frame in found.unseen[:10]:
        print(frame.hex())
    return 1 if found.unseen else 0


if __name__ == "__main__":
    sys.exit(main())
