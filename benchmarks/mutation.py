"""How many faults the proof finds, and how many packets at the edges find, in compiled rulesets.

    .venv/bin/python benchmarks/mutation.py [MOST]

Every operator of tests/proof/mutants.py changes the rulesets of three firewalls of topology.yaml at every place, or at
MOST places of each for each operator (default 12), evenly spread. Diagrams decide which mutants differ from the
original for any packet; the others are no faults. Of those that differ the theorems must find all. Of those that some
packet from a wire can show at the time of the run (tests/proof/sendable.py) the witnesses of the unchanged ruleset,
sent through the changed kernel, must find at least 99 %.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
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
from netpolicy.proof.read import RULESETS
from netpolicy.topology.load import load_topology
from netpolicy.topology.model import Topology
from tests.proof.mutants import OPERATORS, Mutant, mutants
from tests.proof.score import EQUIVALENT, FOUND, REFUSED, SURVIVED, Scale

FIREWALLS = ("shinagawa-line-fw", "tokyo-fw", "tachikawa-municipal-fw")
"""With relays, with both, without."""
_WITNESSED = 0.99
_ROOT = Path(__file__).parents[1]


def main() -> int:
    """Weigh all mutants, print the scores; 1 if the proof has missed one or witnesses more than 1 %."""
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    topology = load_topology(_ROOT / "topology.yaml").topology
    weighed: list[Weighed] = []
    with tempfile.TemporaryDirectory() as directory:
        build = Path(directory) / "build"
        compile_topology(topology, build)
        begun = time.monotonic()
        for firewall in FIREWALLS:
            weighed.extend(Weighed(firewall, *each) for each in _weigh(topology, build, firewall, most))
        proving = time.monotonic() - begun
        begun = time.monotonic()
        for firewall in FIREWALLS:
            _send(topology, build, [each for each in weighed if each.firewall == firewall and each.is_sent])
        sending = time.monotonic() - begun
    return _print(weighed, proving, sending)


@dataclass(slots=True)
class Weighed:
    """A mutant of one firewall's ruleset, and what came of it."""

    firewall: str
    mutant: Mutant
    fate: str
    shows: bool | None
    """Whether some packet from a wire is judged otherwise now; None if the proof refuses the ruleset by name."""
    witnessed: bool = False

    @property
    def is_fault(self) -> bool:
        """Whether it makes a difference to some packet."""
        return self.fate in {FOUND, SURVIVED}

    @property
    def is_sent(self) -> bool:
        """Whether witnesses are sent through it."""
        return self.is_fault and self.shows is not False


def _print(weighed: list[Weighed], proving: float, sending: float) -> int:
    fates = Counter(each.fate for each in weighed)
    faults = [each for each in weighed if each.is_fault]
    showing = [each for each in faults if each.shows]
    seen = sum(each.witnessed for each in showing)
    unknown = [each for each in faults if each.shows is None]
    print(
        f"{len(weighed)} mutants by {len(OPERATORS)} operators at {len(FIREWALLS)} firewalls: "
        f"{fates[REFUSED]} refused by nft, {fates[EQUIVALENT]} equivalent, {len(faults)} faults"
    )
    print(
        f"proof:     {fates[FOUND]} of {len(faults)} found, {100 * fates[FOUND] / len(faults):.2f} %, {proving:.0f} s"
    )
    print(
        f"witnesses: {seen} of {len(showing)} found, {100 * seen / len(showing):.2f} %, {sending:.0f} s; "
        f"no packet from a wire shows {len(faults) - len(showing) - len(unknown)} others now"
    )
    print(f"of {len(unknown)} that the proof refuses by name, witnesses find {sum(each.witnessed for each in unknown)}")
    for operator in OPERATORS:
        mine = [each for each in weighed if each.mutant.operator == operator.name]
        known = Counter(each.fate for each in mine)
        print(
            f"  {operator.name:34}{known[REFUSED]:5} refused{known[EQUIVALENT]:5} equivalent"
            f"{known[FOUND]:5} of {known[FOUND] + known[SURVIVED]:<4} proof"
            f"{sum(each.witnessed for each in mine):5} witnesses"
        )
    for each in faults:
        if each.fate == SURVIVED:
            print(f"survived: {each.firewall}, {each.mutant}")
        if each.shows is not None and each.witnessed is not each.shows:
            what = "not witnessed" if each.shows else "witnessed, and should not show"
            print(f"{what}: {each.firewall}, {each.mutant}")
    return int(fates[SURVIVED] > 0 or seen < _WITNESSED * len(showing))


def _chosen(text: str, most: int) -> Iterator[Mutant]:
    for _, group in groupby(mutants(text), key=lambda each: each.operator):
        known = list(group)
        step = max(1, -(-len(known) // most))
        yield from known[::step]


def _weigh(topology: Topology, build: Path, firewall: str, most: int) -> Iterator[tuple[Mutant, str, bool | None]]:
    scale = Scale(topology, build, firewall)
    for each in _chosen((build / firewall / "nftables.nft").read_text(encoding="utf-8"), most):
        fate = scale.weigh(each)
        shows = scale.shows(each, datetime.now(UTC)) if fate in {FOUND, SURVIVED} else False
        yield each, fate, shows


def _send(topology: Topology, build: Path, faults: list[Weighed]) -> None:
    """Send the witnesses of an unchanged ruleset through each of its faults, until one is judged otherwise."""
    with tempfile.TemporaryDirectory() as directory, Lab(topology, build, Root.find(), inline=False) as lab:
        identities = issue_identities(topology, Path(directory) / "identities", now=datetime.now(UTC))
        lab.start_relays(identities.directory)
        scope, firewall = Scope(lab), faults[0].firewall
        with lab.isolated():
            model = live_model(lab, firewall)
            trials = planned(model, scope)
            for each in faults:
                # The lab loads a firewall's files anew whenever state is to be gone.
                (build / firewall / RULESETS[1]).write_text(each.mutant.text, encoding="utf-8")
                each.witnessed = _witnessed(Comparison(lab, scope, firewall, model, Results()), trials)


def _witnessed(comparison: Comparison, trials: list[Trial]) -> bool:
    try:
        comparison.run(trials)
    except (FaultError, LabError):  # a kernel that drops everything lets no connection open
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
