"""Theorems that take more than the sets of one firewall, answered by both: who finds what, in the theorems' words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from netpolicy.proof import fields
from netpolicy.proof.case import Case, Finding
from netpolicy.proof.judged import Judged
from netpolicy.proof.theorems import engines as by_engines
from netpolicy.proof.theorems import live as by_life
from netpolicy.proof.theorems.order import order
from netpolicy.proof.theorems.reach import invariants, reach
from tests.proof import z3_live, z3_order
from tests.proof.second import Firewall, gets_on
from tests.proof.z3_engines import HANDED, PASSED, TAKEN, Files, Seen, read_files
from tests.proof.z3_exact import Witness
from tests.proof.z3_invariant import Step, Way, Ways
from tests.proof.z3_packet import Symbols
from tests.proof.z3_reach import HEADER


@dataclass(frozen=True, slots=True)
class Answers:
    """To one question: what contradicts the theorem by each."""

    about: str
    by_z3: frozenset[str]
    by_diagrams: frozenset[str]
    unconfirmed: tuple[str, ...] = field(default=())
    """Of z3's packets, those with which the evaluator does not get on."""

    def disagreements(self) -> Iterator[str]:
        """Yield what only one of them finds."""
        yield from (f"{self.about}: only z3: {each}" for each in sorted(self.by_z3 - self.by_diagrams))
        yield from (f"{self.about}: only the diagrams: {each}" for each in sorted(self.by_diagrams - self.by_z3))
        yield from (f"{self.about}: the evaluator: {each}" for each in self.unconfirmed)


def about_life(judged: Sequence[Judged]) -> Answers:
    """Ask what no packet needs of a ruleset, judged in each family."""
    host, ruleset, spaces = judged[0].host, judged[0].ruleset, [each.space for each in judged]
    findings = by_life.dead(host, ruleset, [by_life.life(each) for each in judged], spaces)
    told = (each.what.partition(":")[0] + (f": {each.rule}" if each.rule else "") for each in findings)
    return Answers(f"live, {host}", frozenset(z3_live.dead(host, ruleset, spaces)), frozenset(told))


def about_flows(case: Case, firewalls: Iterable[Firewall]) -> Iterator[Answers]:
    """Ask which flows have packets in common at a firewall; of two the later one is told."""
    told = list(by_life.flows(case))
    for each in firewalls:
        ours = frozenset(str(finding.flow) for finding in told if finding.firewall == each.name)
        # In the order of the theorem: what ends at the firewall, or its relay, first.
        demanded = case.demanded[each.name]
        names = [name for name in dict.fromkeys([*demanded.delivered, *demanded.forwarded]) if name in each.flows]
        flows = {name: each.flows[name] for name in names}
        assert set(flows) == set(each.flows)
        theirs = frozenset(later for _, later in z3_live.shared(flows))
        yield Answers(f"flows, {each.name}", theirs, ours)


def about_order(judged: Judged) -> Answers:
    """Ask which base chains of one place do not commute."""
    space = judged.space
    by_z3 = z3_order.order(judged.host, judged.ruleset, Symbols(space.family, space.names))
    ours = (each.what.partition(" have one priority")[0].split(" and ") for each in order(judged))
    return Answers(
        f"order, {judged.host}, {space.family.name}",
        frozenset(" and ".join(sorted(pair)) for pair in by_z3),
        frozenset(" and ".join(sorted(pair)) for pair in ours),
    )


def about_engines(firewall: Firewall, build: Path) -> Answers:
    """Ask whether engines and relays of a build see every connection."""
    return about_guards(firewall, by_engines.read_guards(build), read_files(build))


def about_guards(firewall: Firewall, guards: by_engines.Guards, files: Files) -> Answers:
    """Ask the same of what stands beside the firewall, as each has read it."""
    relayed = (each.flow for each in firewall.case.permitted[firewall.name] if each.relayed)
    seen = Seen(firewall.theorem, firewall.flows, frozenset(flow.id for flow in relayed), files)
    found = list(seen.contradictions())
    judged = firewall.opinions.judged
    wrong = [f"{what}: {witness.packet}" for what, _, witness in found if not _slips_by(judged, seen, what, witness)]
    return Answers(
        f"engines, {firewall.name}, {judged.space.family.name}",
        frozenset(_unseen(what, flow) for what, flow, _ in found),
        frozenset(_told(each) for each in by_engines.engines(firewall.case, firewall.name, guards)),
        tuple(wrong),
    )


def _slips_by(judged: Judged, seen: Seen, what: str, witness: Witness) -> bool:
    way = {PASSED: "forwarded", TAKEN: "delivered"}.get(what, "diverted")
    handed = gets_on(judged, "diverted", witness.packet, witness.unknown)
    right = handed if way == "diverted" else seen.unseen(witness.packet) and (way == "forwarded" or not handed)
    return right and gets_on(judged, way, witness.packet, witness.unknown)


def _told(finding: Finding) -> str:
    what = next(each for each in (PASSED, TAKEN, HANDED) if finding.what.startswith(each))
    if what != HANDED:
        return _unseen(what, None)
    return _unseen(finding.what.partition(",")[0], finding.flow)


def _unseen(what: str, flow: str | None) -> str:
    return f"{what}, flow '{flow}'" if flow else what


def about_invariants(case: Case, firewalls: Mapping[str, Firewall]) -> Answers:
    """Ask what gets through although an invariant forbids it; z3's packets are followed from firewall to firewall."""
    broken = Ways(case, {name: each.opening() for name, each in firewalls.items()}).broken()
    return Answers(
        f"invariant, {case.space.family.name}",
        frozenset(broken),
        frozenset(each.what for each in invariants(case, reach(case))),
        tuple(what for what, way in broken.items() if not _goes(case, way)),
    )


def _goes(case: Case, way: Way) -> bool:
    """Tell whether each firewall of a way lets it begin, with one header from end to end."""
    headers = {tuple(each.packet[part] for part in HEADER) for _, witnesses in way for each in witnesses}
    joined = all(
        case.routing.interface(before.firewall, before.ends[1]).segment
        == case.routing.interface(after.firewall, after.ends[0]).segment
        for (before, _), (after, _) in pairwise(way)
    )
    return len(headers) == 1 and joined and all(_lets_begin(case, *each) for each in way)


def _lets_begin(case: Case, step: Step, witnesses: tuple[Witness, ...]) -> bool:
    judged, first, last = case.judged[step.firewall], witnesses[0], witnesses[-1]
    if (first.packet[fields.IIF], last.packet[fields.OIF]) != step.ends:
        return False
    ways = ["forwarded"] if first is last else ["diverted", "sent"]
    return all(gets_on(judged, way, each.packet, each.unknown) for way, each in zip(ways, witnesses, strict=True))
