"""Edits of rulesets as somebody with a plan makes them: what the proof accepts must let nothing through in a kernel.

    .venv/bin/python benchmarks/evasion.py --seed 16 --edits 5000

Edits are random, from a grammar of what nft 1.0.6 takes and not of what is compiled: tables of every family, hooks,
priorities, sets and maps with every flag and statement, objects, translation, queues, verdict maps, commands, includes,
comments that say something else. Each is read back from a kernel as ``netpolicy prove`` does, and held against the
theorems about rulesets. What they accept is loaded into that firewall of a lab, and every packet from a wire that the
unchanged ruleset drops, of its own witnesses, is sent through it: none may come out. 1 if one does.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.evasion_grammar import Edit, edited
from conformance.lab import Lab, LabError
from conformance.lab.rooted import Root
from conformance.lab.scope import Scope
from conformance.probe.neighbour import is_answer, question
from conformance.probe.shape import ANSWER_SEQUENCE, number_of
from conformance.probe.wire import Wire, macs_to, wired
from conformance.witness.forecast import FORWARDED, RELAYED
from conformance.witness.plan import Trial
from conformance.witness.run import live_model, planned
from netpolicy.build import compile_topology
from netpolicy.intent.routing import Routing
from netpolicy.proof.case import Case, Finding
from netpolicy.proof.expected import Demands, Permitted, crossings
from netpolicy.proof.fields import Family
from netpolicy.proof.judged import judge, space_for
from netpolicy.proof.model import Ruleset
from netpolicy.proof.read import RULESETS, LoadError, read_rulesets
from netpolicy.proof.terms import RefusedError
from netpolicy.proof.theorems.engines import engines, read_guards
from netpolicy.proof.theorems.exact import exact, limits
from netpolicy.proof.theorems.order import order
from netpolicy.topology.load import load_topology
from netpolicy.topology.model import Topology
from tests.lab.small import of_family, small_topology

FIREWALLS = ("shinagawa-line-fw", "tokyo-fw", "tachikawa-municipal-fw")
"""With relays, with both, without."""
_SHARES = {"topology.yaml": 9, "small": 1, "ipv4": 1, "ipv6": 1}
"""Networks, the small one also with one family alone, and what part of all edits is of each."""
_ROOT = Path(__file__).parents[1]
_PATIENCE, _BATCH = 5.0, 500
NOT_LOADED, REFUSED, CONTRADICTED, HARMLESS, EVASION = (
    "not loaded by nft",
    "refused by name",
    "contradicted",
    "harmless",
    "evasion",
)
CRASHED = "crashed"
"""Nothing is proven, but nobody is told by name."""


@dataclass(slots=True)
class Court:
    """The theorems about one firewall's ruleset; those about ways through the network follow from them."""

    topology: Topology
    build: Path
    firewall: str
    _routing: Routing = field(init=False)
    _permitted: dict[str, list[Permitted]] = field(init=False)

    def __post_init__(self) -> None:
        self._routing = Routing(self.topology)
        self._permitted = crossings(self.topology, self._routing)

    def fate(self, texts: Mapping[str, str]) -> tuple[str, str]:
        """Return what becomes of a firewall's rulesets, and by what."""
        with tempfile.TemporaryDirectory() as directory:
            paths = [Path(directory) / name for name in RULESETS]
            for path in paths:
                path.write_text(texts[path.name], encoding="utf-8")
            try:
                ruleset = read_rulesets([paths])[0]
            except LoadError:
                return NOT_LOADED, ""
            except RefusedError as refused:
                return REFUSED, refused.what
            except Exception as error:  # noqa: BLE001 - whatever it is, it should have been a refusal
                return CRASHED, repr(error)
        try:
            finding = next(self._findings(ruleset), None)
        except RefusedError as refused:
            return REFUSED, refused.what
        return (HARMLESS, "") if finding is None else (CONTRADICTED, finding.theorem)

    def _findings(self, ruleset: Ruleset) -> Iterator[Finding]:
        known = self.topology.firewalls[self.firewall]
        for family in Family:
            space = space_for(family, [ruleset], [each.name for each in known.interfaces])
            judged = judge(self.firewall, ruleset, space)
            demanded = Demands(self.topology, self._routing, known, space, self._permitted[self.firewall]).demanded()
            case = Case(self.topology, self._routing, self._permitted, space, {known.id: judged}, {known.id: demanded})
            yield from exact(case, self.firewall)
            yield from limits(case, self.firewall)
            yield from order(judged)
            yield from engines(case, self.firewall, read_guards(self.build / self.firewall))


@dataclass(frozen=True, slots=True)
class Flood:
    """What a firewall of a living lab must never pass, and sends it."""

    lab: Lab
    firewall: str
    scope: Scope
    forbidden: Sequence[Trial]

    def passed(self, texts: Mapping[str, str]) -> str | None:
        """Load rulesets, send everything, and return the first packet that came out; None if none did."""
        self.lab.namespace(self.firewall).run(["nft", "flush", "ruleset"], timeout=30.0)
        with tempfile.TemporaryDirectory() as directory:
            for name in RULESETS:
                path = Path(directory) / name
                path.write_text(texts[name], encoding="utf-8")
                self.lab.load(self.firewall, path)
        self.lab.flush_conntrack(self.firewall)
        known = self.lab.topology.firewalls[self.firewall]
        with wired(self.lab, known, self.scope) as wire:
            for interface in known.interfaces:
                mine = [each for each in self.forbidden if each.ingress == interface.name]
                for begin in range(0, len(mine), _BATCH):
                    if (found := self._sent(wire, interface.name, mine[begin : begin + _BATCH])) is not None:
                        return found
        return None

    def _sent(self, wire: Wire, interface: str, trials: Sequence[Trial]) -> str | None:
        known = self.lab.topology.firewalls[self.firewall]
        end = next(each for each in known.interfaces if each.name == interface)
        frames = [each.frame(macs_to(known, interface), ANSWER_SEQUENCE) for each in trials]
        seen = wire.exchange(interface, [*frames, question(end, self.lab.topology)], is_answer, _PATIENCE)
        out = {number_of(frame): name for name, frame in seen.left}
        return next((f"{each.packet} came out of {out[each.number]}" for each in trials if each.number in out), None)


@dataclass(slots=True)
class Report:
    """What became of all edits."""

    fates: Counter[str] = field(default_factory=Counter)
    by: Counter[tuple[str, str]] = field(default_factory=Counter)
    evasions: list[str] = field(default_factory=list)
    errors: int = 0
    """Accepted, but the lab did not load them: what the lister's namespace takes and a firewall's does not."""

    def __str__(self) -> str:
        total = sum(self.fates.values())
        lines = [f"{total} edits: " + ", ".join(f"{count} {fate}" for fate, count in self.fates.most_common())]
        lines += [f"  {count:5} {fate}: {what}" for (fate, what), count in self.by.most_common() if what]
        if self.errors:
            lines.append(f"  {self.errors} accepted, and not taken by the lab")
        return "\n".join([*lines, *(f"EVASION {each}" for each in self.evasions)])


def attack(
    topology: Topology, build: Path, firewalls: Sequence[str], *, seed: int, edits: int, most: int = 4000
) -> Report:
    """Edit the rulesets of firewalls, judge every edit, and flood what is accepted.

    Args:
        topology: Of the build.
        build: Compiled; it is not changed.
        firewalls: Edited one after the other, each as often.
        seed: For the same edits again.
        edits: How many.
        most: Packets of one flood.

    """
    report = Report()
    with Lab(topology, build, Root.find(), inline=False) as lab, lab.isolated():
        for place, firewall in enumerate(firewalls):
            share = edits // len(firewalls) + (place < edits % len(firewalls))
            attacked = _Attacked(topology, build, firewall, lab, report)
            attacked.run(seed, share, most)
    return report


@dataclass(frozen=True, slots=True)
class _Attacked:
    """One firewall."""

    topology: Topology
    build: Path
    firewall: str
    lab: Lab
    report: Report

    def run(self, seed: int, share: int, most: int) -> None:
        """Edit its rulesets `share` times."""
        texts = {name: (self.build / self.firewall / name).read_text(encoding="utf-8") for name in RULESETS}
        court = Court(self.topology, self.build, self.firewall)
        flood = self._flood(most)
        if (passed := flood.passed(texts)) is not None:
            raise SystemExit(f"{self.firewall}: unchanged, and yet {passed}")
        names = [each.name for each in self.topology.firewalls[self.firewall].interfaces]
        for number in range(share):
            chance = random.Random(f"{seed}/{self.firewall}/{number}")  # noqa: S311 - the same edits for the same seed
            edit = edited(texts, chance, names)
            fate, what = court.fate(edit.texts)
            if fate == HARMLESS and (passed := self._flooded(flood, edit)) is not None:
                fate = EVASION
                self.report.evasions.append(f"--seed {seed}, {self.firewall}, edit {number}: {edit.what}: {passed}")
                print(self.report.evasions[-1], flush=True)
            self.report.fates[fate] += 1
            self.report.by[fate, what] += 1

    def _flood(self, most: int) -> Flood:
        scope = Scope(self.lab)
        trials = planned(live_model(self.lab, self.firewall), scope)
        dropped = [each for each in trials if each.connection is None and each.forecast.end not in {FORWARDED, RELAYED}]
        return Flood(self.lab, self.firewall, scope, dropped[:: max(1, -(-len(dropped) // most))])

    def _flooded(self, flood: Flood, edit: Edit) -> str | None:
        try:
            return flood.passed(edit.texts)
        except LabError:
            self.report.errors += 1
            return None


def _network(name: str) -> tuple[Topology, Sequence[str]]:
    """Return a network, and the firewalls of it that are edited."""
    if name == "topology.yaml":
        return load_topology(_ROOT / name).topology, FIREWALLS
    topology = small_topology("evasion" if name == "small" else f"evasion-{name}")
    return (topology if name == "small" else of_family(topology, int(name[-1]))), ("edge",)


def main() -> int:
    """Attack builds; 1 if a packet came through that none may."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=16)
    parser.add_argument("--edits", type=int, default=5000)
    parser.add_argument("--network", choices=_SHARES, help="edit this one alone; default: all of them")
    parser.add_argument("--most", type=int, default=2000, help="packets of one flood; default: %(default)s")
    args = parser.parse_args()
    begun = time.monotonic()
    code = 0
    shares = _SHARES if args.network is None else {args.network: 1}
    with tempfile.TemporaryDirectory() as directory:
        left, parts = args.edits, sum(shares.values())
        for name, share in shares.items():
            topology, firewalls = _network(name)
            build = Path(directory) / name
            compile_topology(topology, build)
            edits, left, parts = left * share // parts, left - left * share // parts, parts - share
            report = attack(topology, build, firewalls, seed=args.seed, edits=edits, most=args.most)
            print(f"{topology.id}: {report}", flush=True)
            code |= int(bool(report.evasions))
    print(f"seed {args.seed}, {time.monotonic() - begun:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main())
