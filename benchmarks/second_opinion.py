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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, islice, pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from netpolicy.build import compile_topology
from netpolicy.intent.check import check_topology
from netpolicy.proof.case import Case, prepare
from netpolicy.proof.fields import Family
from netpolicy.proof.judged import Judged, judge, space_for
from netpolicy.proof.model import Ruleset
from netpolicy.proof.theorems.reach import pairs, reach
from netpolicy.topology.model import Topology
from tests.proof.faults import DEAD, EDITS, OPEN, OPENED, UNSEEN, Edit
from tests.proof.random_networks import try_networks
from tests.proof.random_opinions import Trial, read_random, try_rulesets
from tests.proof.second import Firewall, read_build
from tests.proof.second_theorems import (
    Answers,
    about_engines,
    about_flows,
    about_invariants,
    about_life,
    about_order,
)
from tests.proof.z3_order import unordered
from tests.proof.z3_reach import connections_set, followed_connections

_EDITED = "tokyo-fw"
_AT_ONCE = 20


@dataclass(slots=True)
class Figures:
    """What was asked, how long it took, and who disagreed."""

    asked: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    found: Counter[str] = field(default_factory=Counter)
    """What contradicts a theorem, by both."""
    disagreements: list[str] = field(default_factory=list)

    def hear(self, what: str, number: int, asked: Callable[[], Answers | Iterable[Answers]]) -> None:
        """Ask so many questions of a kind, and note what both answer."""
        begun = time.process_time()
        answers = asked()
        for each in [answers] if isinstance(answers, Answers) else answers:
            self.found[what] += len(each.by_z3 & each.by_diagrams)
            self.disagreements += each.disagreements()
        self.seconds[what] += time.process_time() - begun
        self.asked[what] += number

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
        cases = [prepare(topology, rulesets, family) for family in Family]
        networks = [(case, {name: Firewall(case, name) for name in topology.firewalls}) for case in cases]
        for case, firewalls in networks:
            _network(case, firewalls, build, figures)
        for name in topology.firewalls:
            _life([case.judged[name] for case in cases], "rules and elements that packets need", figures)
        if _EDITED in topology.firewalls:
            _edits(topology, build, Path(directory), figures)
            for number, (name, edit) in enumerate(DEAD):
                changed = _changed(build, Path(directory) / f"dead{number}", {name: edit})
                _life(_judged(name, changed[name]), "rules and elements of edited builds", figures)
            for case, firewalls in networks:
                _unseen(case, build, Path(directory), figures)
                _opened(case, firewalls, build, Path(directory), figures)
    _networks(args.rulesets, figures)
    for what, asked in figures.asked.items():
        print(f"{what}: {asked:,} in {figures.seconds[what]:.1f} s, {figures.found[what]:,} contradictions by both")
    found = _random(args.rulesets, args.packets)
    print(
        f"random rulesets: {found.rulesets} ({found.refused} more refused by name or by nft, {len(found.too_big)} too "
        f"big), {found.sets:,} sets, {found.packets:,} packets of which {found.passed:,} pass, {found.parts:,} rules "
        f"and elements of which {found.dead:,} are dead, {found.orders:,} pairs of base chains of which "
        f"{found.unequal:,} do not commute"
    )
    disagreements = [*figures.disagreements, *found.disagreements]
    for each in disagreements:
        print(f"DISAGREE {each}")
    print(f"{len(disagreements)} disagreements")
    return 1 if disagreements else 0


def _network(case: Case, firewalls: Mapping[str, Firewall], build: Path, figures: Figures) -> None:
    for firewall in firewalls.values():
        figures.ask("sets of packets", len(firewall.opinions.sets.named()), firewall.opinions.differences())
        figures.ask("demands of the topology", 5, firewall.demands())
        figures.ask("answers about exactness", 12, _answers(firewall))
        figures.ask("answers about what may begin a connection", 4, firewall.opening().contradictions())
        figures.ask("dependences on the unknown", 4, _depending(firewall))
    ends = len(case.topology.segments) + len(case.topology.firewalls)
    figures.ask("pairs", len(case.topology.segments) * (ends - 1), _pairs(case))
    figures.hear("invariants", len(case.topology.invariants), partial(about_invariants, case, firewalls))
    for name, firewall in firewalls.items():
        figures.hear("engines and relays", 1, partial(about_engines, firewall, build / name))
        pairs_of_chains = sum(1 for _ in unordered(firewall.opinions.judged.ruleset, case.space.family))
        figures.hear("pairs of base chains", pairs_of_chains, partial(about_order, firewall.opinions.judged))
    flows = sum(len(firewall.flows) for firewall in firewalls.values())
    figures.hear("flows on each firewall", flows, partial(about_flows, case, firewalls.values()))


def _life(judged: Sequence[Judged], what: str, figures: Figures) -> None:
    ruleset = judged[0].ruleset
    parts = sum(1 for _ in ruleset.rules()) + sum(len(each.elements) for each in ruleset.collections.values())
    figures.hear(what, parts, partial(about_life, judged))


def _judged(host: str, ruleset: Ruleset) -> list[Judged]:
    return [judge(host, ruleset, space_for(family, [ruleset], ())) for family in Family]


def _changed(build: Path, folder: Path, edits: Mapping[str, Edit]) -> dict[str, Ruleset]:
    for name, edit in edits.items():
        shutil.copytree(build / name, folder / name)
        edit.apply(folder, name)
    return read_build(folder, tuple(edits))


def _unseen(case: Case, build: Path, directory: Path, figures: Figures) -> None:
    for number, edit in enumerate(UNSEEN):
        folder = directory / f"unseen{number} {case.space.family.name}"
        ruleset = _changed(build, folder, {_EDITED: edit})[_EDITED]
        other = replace(case, judged={**case.judged, _EDITED: judge(_EDITED, ruleset, case.space)})
        asked = partial(about_engines, Firewall(other, _EDITED), folder / _EDITED)
        figures.hear("engines and relays of edited builds", 1, asked)


def _opened(case: Case, firewalls: Mapping[str, Firewall], build: Path, directory: Path, figures: Figures) -> None:
    for number, names in enumerate(OPENED):
        folder = directory / f"opened{number} {case.space.family.name}"
        changed = _changed(build, folder, dict.fromkeys(names, OPEN))
        judged = {**case.judged, **{name: judge(name, each, case.space) for name, each in changed.items()}}
        other = replace(case, judged=judged)
        changing = {**firewalls, **{name: Firewall(other, name) for name in changed}}
        figures.hear(
            "invariants of edited builds", len(case.topology.invariants), partial(about_invariants, other, changing)
        )


def _networks(rulesets: int, figures: Figures) -> None:
    several = [(seed, each) for seed, each in read_random(range(rulesets)) if each is not None]
    for one, other in pairwise(several):
        # Two families, in each of which two firewalls and two invariants.
        figures.hear("engines, relays and invariants of random networks", 8, partial(try_networks, [one, other]))


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
        _life(_judged(_EDITED, rulesets[_EDITED]), "rules and elements of edited builds", figures)


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
