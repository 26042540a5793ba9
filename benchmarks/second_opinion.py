"""Ask z3 and the plain evaluator whether they agree with the diagrams, about everything, and print how long it takes.

Every firewall of the topology in both families, the theorems about it, builds edited by hand, and random rulesets.
Return 1 at any disagreement.

    make bench            or        python benchmarks/second_opinion.py [--rulesets 200] [--packets 40]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from netpolicy.build import compile_topology
from netpolicy.intent.check import check_topology
from netpolicy.proof.case import Case, prepare
from netpolicy.proof.fields import Family
from netpolicy.proof.theorems.reach import pairs, reach
from netpolicy.topology.model import Topology
from tests.proof.faults import EDITS
from tests.proof.random_opinions import Trial, try_rulesets
from tests.proof.second import Firewall, read_build
from tests.proof.z3_reach import connections_set, followed_connections

_EDITED = "tokyo-fw"
_AT_ONCE = 20


@dataclass(slots=True)
class Figures:
    """What was asked, how long it took, and who disagreed."""

    asked: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    disagreements: list[str] = field(default_factory=list)

    def ask(self, what: str, number: int, disagreements: Iterable[str]) -> None:
        """Note so many questions of a kind, and their answers."""
        begun = time.process_time()
        self.disagreements += disagreements
        self.seconds[what] += time.process_time() - begun
        self.asked[what] += number


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topology", type=Path, default=Path("topology.yaml"))
    parser.add_argument("--rulesets", type=int, default=200)
    parser.add_argument("--packets", type=int, default=40, help="for each ruleset, family and way")
    args = parser.parse_args()
    topology = check_topology(args.topology).topology
    figures = Figures()
    with tempfile.TemporaryDirectory() as directory:
        build = Path(directory) / "build"
        compile_topology(topology, build)
        rulesets = read_build(build, tuple(topology.firewalls))
        for family in Family:
            _network(prepare(topology, rulesets, family), figures)
        if _EDITED in topology.firewalls:
            _edits(topology, build, Path(directory), figures)
    for what, asked in figures.asked.items():
        print(f"{what}: {asked:,} in {figures.seconds[what]:.1f} s")
    found = _random(args.rulesets, args.packets)
    print(
        f"random rulesets: {found.rulesets} ({found.refused} more refused by name or by nft, {len(found.too_big)} too "
        f"big), {found.sets:,} sets, {found.packets:,} packets of which {found.passed:,} pass"
    )
    disagreements = [*figures.disagreements, *found.disagreements]
    for each in disagreements:
        print(f"DISAGREE {each}")
    print(f"{len(disagreements)} disagreements")
    return 1 if disagreements else 0


def _network(case: Case, figures: Figures) -> None:
    for name in case.topology.firewalls:
        firewall = Firewall(case, name)
        figures.ask("sets of packets", len(firewall.opinions.formulas), firewall.opinions.differences())
        figures.ask("demands of the topology", 5, firewall.demands())
        figures.ask("answers about exactness", 12, _answers(firewall))
        figures.ask("answers about what may begin a connection", 4, firewall.opening().contradictions())
        figures.ask("dependences on the unknown", 4, _depending(firewall))
    ends = len(case.topology.segments) + len(case.topology.firewalls)
    figures.ask("pairs", len(case.topology.segments) * (ends - 1), _pairs(case))


def _answers(firewall: Firewall) -> Iterator[str]:
    by_z3, by_diagrams, witnesses = firewall.answers()
    if by_z3 != by_diagrams:
        yield f"{firewall.name}: z3 finds {by_z3}, the diagrams {by_diagrams}"
    for each in witnesses:
        yield from firewall.confirmed(*each)
    yield from firewall.picked()


def _depending(firewall: Firewall) -> Iterator[str]:
    for way, by_z3, by_diagrams in firewall.depending():
        if by_z3 != by_diagrams:
            yield f"{firewall.name}: {way} depends on {by_z3 ^ by_diagrams} by one of them alone"


def _pairs(case: Case) -> Iterator[str]:
    reached, followed = reach(case), followed_connections(case)
    for origin in case.topology.segments:
        for end in (*case.topology.segments, *case.topology.firewalls):
            by_search = connections_set(case, followed[origin].get(end, set()))
            if end != origin and reached.sets[origin].get(end, case.space.false) != by_search:
                yield f"from {origin} to {end}"
    for finding in pairs(case, reached):
        yield str(finding)


def _edits(topology: Topology, build: Path, directory: Path, figures: Figures) -> None:
    for number, edit in enumerate(EDITS):
        folder = directory / f"edit{number}"
        shutil.copytree(build / _EDITED, folder / _EDITED)
        edit.apply(folder, _EDITED)
        rulesets = read_build(folder, (_EDITED,))
        for family in Family:
            firewall = Firewall(prepare(topology, rulesets, family), _EDITED)
            figures.ask("answers about edited builds", 12, _answers(firewall))


def _random(rulesets: int, packets: int) -> Trial:
    """Return what came of so many rulesets that are not refused."""
    begun, found, seeds = time.process_time(), Trial(), count()
    while found.rulesets < rulesets:
        wanted = min(_AT_ONCE, rulesets - found.rulesets)
        found = found.with_more(try_rulesets(islice(seeds, wanted), packets))
    print(f"random rulesets took {time.process_time() - begun:.1f} s")
    return found


if __name__ == "__main__":
    sys.exit(main())
