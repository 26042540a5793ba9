"""How many faults the proof finds, and how many packets at the edges find, in compiled rulesets.

    .venv/bin/python benchmarks/mutation.py [MOST]

Every operator of tests/proof/mutants.py changes the rulesets of three firewalls of topology.yaml at every place, or at
MOST places of each for each operator (default 12), evenly spread. Diagrams decide which mutants differ from the
original for any packet; the others are no faults. Of those that differ the theorems must find all; the witnesses of the
unchanged ruleset are sent through the changed kernel, of which they must find at least 99 %.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from conformance.lab import Lab, LabError
from conformance.lab.rooted import Root
from conformance.lab.scope import Scope
from conformance.pki import issue_identities
from conformance.results import Results
from conformance.witness.plan import Trial
from conformance.witness.run import Comparison, FaultError, live_model, planned
from netpolicy.build import compile_topology
from netpolicy.topology.load import load_topology
from netpolicy.topology.model import Topology
from tests.proof.mutants import OPERATORS, Mutant, mutants
from tests.proof.score import EQUIVALENT, FOUND, REFUSED, SURVIVED, Scale

FIREWALLS = ("shinagawa-line-fw", "tokyo-fw", "tachikawa-municipal-fw")
"""With relays, with both, without."""
_ROOT = Path(__file__).parents[1]


def main() -> int:
    """Weigh all mutants, print the scores; 1 if the proof has missed one or witnesses more than 1 %."""
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    topology = load_topology(_ROOT / "topology.yaml").topology
    with tempfile.TemporaryDirectory() as directory:
        build = Path(directory) / "build"
        compile_topology(topology, build)
        begun = time.monotonic()
        weighed = [
            (firewall, each, fate) for firewall in FIREWALLS for each, fate in _weigh(topology, build, firewall, most)
        ]
        taken = time.monotonic() - begun
        faults = {
            firewall: [each for name, each, fate in weighed if name == firewall and fate in {FOUND, SURVIVED}]
            for firewall in FIREWALLS
        }
        begun = time.monotonic()
        seen = {firewall: _send(topology, build, firewall, faults[firewall]) for firewall in FIREWALLS}
        sent = time.monotonic() - begun
    fates = Counter(fate for _, _, fate in weighed)
    real, found = fates[FOUND] + fates[SURVIVED], fates[FOUND]
    killed = sum(sum(each.values()) for each in seen.values())
    print(
        f"{len(weighed)} mutants by {len(OPERATORS)} operators at {len(FIREWALLS)} firewalls: "
        f"{fates[REFUSED]} refused by nft, {fates[EQUIVALENT]} equivalent, {real} faults"
    )
    print(f"proof:     {found} of {real} found, {100 * found / real:.2f} %, {taken:.0f} s")
    print(f"witnesses: {killed} of {real} found, {100 * killed / real:.2f} %, {sent:.0f} s")
    for operator in OPERATORS:
        mine = Counter(fate for _, each, fate in weighed if each.operator == operator.name)
        live = sum(
            count for each in seen.values() for mutant, count in each.items() if mutant.operator == operator.name
        )
        print(
            f"  {operator.name:34}{mine[REFUSED]:5} refused{mine[EQUIVALENT]:5} equivalent"
            f"{mine[FOUND]:5} of {mine[FOUND] + mine[SURVIVED]:<4} proof{live:5} witnesses"
        )
    for firewall, each, fate in weighed:
        if fate == SURVIVED:
            print(f"survived: {firewall}, {each}")
    for firewall, each in ((name, each) for name, known in seen.items() for each, count in known.items() if not count):
        print(f"not witnessed: {firewall}, {each}")
    return int(found < real or killed < 0.99 * real)


def _chosen(text: str, most: int) -> Iterator[Mutant]:
    for _, group in groupby(mutants(text), key=lambda each: each.operator):
        known = list(group)
        step = max(1, -(-len(known) // most))
        yield from known[::step]


def _weigh(topology: Topology, build: Path, firewall: str, most: int) -> Iterator[tuple[Mutant, str]]:
    scale = Scale(topology, build, firewall)
    for each in _chosen((build / firewall / "nftables.nft").read_text(encoding="utf-8"), most):
        yield each, scale.weigh(each)


def _send(topology: Topology, build: Path, firewall: str, faults: list[Mutant]) -> dict[Mutant, int]:
    """Return which faults the witnesses of the unchanged ruleset have found: 1, or 0."""
    found: dict[Mutant, int] = {}
    with tempfile.TemporaryDirectory() as directory, Lab(topology, build, Root.find(), inline=False) as lab:
        identities = issue_identities(topology, Path(directory) / "identities", now=datetime.now(UTC))
        lab.start_relays(identities.directory)
        scope = Scope(lab)
        with lab.isolated():
            model = live_model(lab, firewall)
            trials = planned(model, scope)
            for each in faults:
                _load(lab, firewall, each.text)
                found[each] = _witnessed(Comparison(lab, scope, firewall, model, Results()), trials)
    return found


def _witnessed(comparison: Comparison, trials: list[Trial]) -> int:
    try:
        comparison.run(trials)
    except (FaultError, LabError):  # a kernel that drops everything lets no connection open
        return 1
    return 0


def _load(lab: Lab, firewall: str, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".nft", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        lab.namespace(firewall).run(["nft", "-f", file.name], timeout=20.0)


if __name__ == "__main__":
    sys.exit(main())
