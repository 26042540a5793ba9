"""The model of rulesets against the kernel: random rulesets with every expression, a counter before every rule.

Prints, for each expression, in how many rulesets it was, how many packets came to a rule with it, how many such a rule
matched, and how many disagreements it had a part in.

    python benchmarks/model.py [--rulesets 550] [--packets 130] [--seed 0]
"""

from __future__ import annotations

import argparse
import sys
import time

from conformance.modelled.trial import Trial, try_rulesets


def main() -> int:
    """Run it; return 1 if the kernel is not as the model says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rulesets", type=int, default=550)
    parser.add_argument("--packets", type=int, default=130, help="of each family and ruleset; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the first ruleset; default: %(default)s")
    args = parser.parse_args()
    began = time.monotonic()
    found = try_rulesets(range(args.seed, args.seed + args.rulesets), args.packets)
    _print(found, time.monotonic() - began)
    return int(bool(found.disagreements or found.unloaded))


def _print(found: Trial, seconds: float) -> None:
    for seed, each in found.disagreements:
        print(f"ruleset {seed}: {each}")
    print("| expression | rulesets | reached | matched | disagreements |\n|---|---:|---:|---:|---:|")
    for name, *figures in found.tally.rows():
        print(f"| `{name}` | {' | '.join(f'{each:,}' for each in figures)} |")
    fates = ", ".join(f"{count:,} {fate}" for fate, count in sorted(found.tally.fates.items()))
    print(f"\n{found.rulesets} rulesets, {found.tally.sent:,} packets ({fates}) in {seconds:.0f} s")
    for counts, said in ((found.refused, "refused"), (found.unloaded, "not loaded")):
        for reason, count in counts.most_common():
            print(f"{count} {said}: {reason}")
    print(f"{len(found.disagreements)} disagreements")


if __name__ == "__main__":
    sys.exit(main())
