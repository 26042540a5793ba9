"""One authorised source takes all that it can get: how many exchanges of its neighbour pass, and how slowly.

    .venv/bin/python benchmarks/starvation.py [--exchanges 100] [--sessions 230] [--kind "silent sessions"]

The source has a good certificate, its own address and a permitted flow; flows have the limits of the command line.
Each flood is tried for an inspected and a relayed flow, in IPv4, in IPv6, and from both of its addresses at once.
Ends with 1 if fewer than 99 of 100 exchanges pass in any round.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from conformance.application.serve import serve_lab
from conformance.lab import Lab
from conformance.lab.rooted import Root, compile_for
from conformance.lab.scope import Scope
from conformance.pki import issue_identities
from conformance.starvation.attacker import Kind
from conformance.starvation.measure import Round, Starvation
from netpolicy.topology.model import Limits
from tests.lab.small import crowded_topology

PASSING = 0.99
_FAMILIES = ((4,), (6,), (4, 6))


def main() -> int:
    """Run it, and print a line for each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exchanges", type=int, default=100, help="of the neighbour, in each round")
    parser.add_argument("--sessions", type=int, default=230, help="that the source wants to hold at once")
    parser.add_argument("--connections", type=int, default=240, help="that the flow may have")
    parser.add_argument("--rate", type=int, default=200, help="new connections a second that the flow may have")
    parser.add_argument("--kind", action="append", choices=[each.value for each in Kind], help="by default, all")
    parser.add_argument("--flow", action="append", choices=("notice", "letter"), help="by default, both")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found")
    args = parser.parse_args()
    root = Root.find()
    if root is None:
        print("starvation: there is no root of the inline engine: make setup", file=sys.stderr)
        return 3
    topology = crowded_topology("starvation", Limits(rate=args.rate, connections=args.connections))
    kinds = [Kind(each) for each in args.kind] if args.kind else list(Kind)
    order = [(kind, flow, families) for kind in kinds for flow in args.flow or topology.flows for families in _FAMILIES]
    random.Random(args.seed).shuffle(order)  # noqa: S311 - reproducible on purpose
    print(f"seed {args.seed}, {len(order)} rounds of {args.exchanges} exchanges\n{HEADING}", flush=True)
    found = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        compile_for(root, topology, directory / "build")
        identities = issue_identities(topology, directory / "identities", now=datetime.now(UTC))
        with Lab(topology, directory / "build", root) as lab:
            lab.start_relays(identities.directory)
            lab.pin(identities.fingerprints([*topology.nodes.values(), *topology.firewalls.values()]))
            # The servers must not be what starves: a thread for every connection that the firewalls let through.
            with serve_lab(lab, identities, 2 * len(topology.flows) * args.connections) as serving:
                alpha, beta = topology.nodes["alpha"], topology.nodes["beta"]
                starvation = Starvation(lab, serving, identities, Scope(lab), alpha, beta, args.sessions)
                for kind, flow, families in order:
                    found.append(starvation.run(kind, flow, families, args.exchanges))
                    print(line(found[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps([asdict(each) for each in found], indent=2) + "\n", encoding="utf-8")
    short = [each for each in found if each.share < PASSING]
    print(f"{len(found) - len(short)} of {len(found)} rounds hold: at least {PASSING:.0%} of exchanges pass")
    return 1 if short else 0


HEADING = f"{'flood':<23} {'flow':<7} {'IP':<4} {'passed':>9} {'median':>7} {'worst':>7}  attack; refused; failed"


def line(each: Round) -> str:
    """Return one round for a person."""
    families = "+".join(map(str, each.families))
    attack = ", ".join(f"{name} {count:,}" for name, count in each.attacked.items())
    refused = ", ".join(
        f"{name.removeprefix('deny_')} {count:,}" for name, count in each.counted.items() if name.startswith("deny_")
    )
    failed = "; ".join(f"{count} x {why}" for why, count in each.failures.most_common(3))
    if each.overflown:
        failed += f"; accept queues overflown {each.overflown}"
    return (
        f"{each.kind:<23} {each.flow:<7} {families:<4} {each.passed:>4}/{each.asked:<4} "
        f"{each.median:>6.2f}s {each.worst:>6.2f}s  {attack or '-'}; {refused or '-'}; {failed or '-'}"
    )


if __name__ == "__main__":
    sys.exit(main())
