"""All theorems about a build: proven, or answered with what contradicts them."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from oxidd.util import DDMemoryError

from netpolicy.proof.case import Case, Finding, prepare
from netpolicy.proof.fields import Family
from netpolicy.proof.judged import space_for
from netpolicy.proof.model import Ruleset
from netpolicy.proof.read import MissingError, read_rulesets
from netpolicy.proof.theorems.engines import ENGINES, engines, read_guards
from netpolicy.proof.theorems.exact import ACCEPTS, ANSWERS, LIMITS, exact, limits
from netpolicy.proof.theorems.live import LIVE, Life, dead, flows, life
from netpolicy.proof.theorems.order import ORDER, order, unordered
from netpolicy.proof.theorems.reach import INVARIANT, REACH, invariants, pairs, reach
from netpolicy.topology.model import Topology

RULESETS = ("guard.nft", "nftables.nft")
"""Of one firewall's build, in the order in which they are loaded."""

TITLES = {
    ACCEPTS: "each firewall accepts exactly what its flows say",
    REACH: "between all pairs of segments, on every way, under any source address, exactly the flows' connections pass",
    INVARIANT: "every invariant of the topology holds",
    ANSWERS: "answers pass exactly for permitted connections",
    LIMITS: "new connections are held to the limits of their flows",
    LIVE: "no rule, element or flow is dead, hidden or needless",
    ORDER: "base chains of one hook and priority commute",
    ENGINES: "each accepted connection crosses an engine or a relay on each firewall",
}
"""In the order in which they are told."""


@dataclass(frozen=True, slots=True)
class Theorem:
    """One of them, and what came of it."""

    id: str
    title: str
    about: str
    """How much it was about, in words."""
    seconds: float
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing contradicts it."""
        return not self.findings


@dataclass(frozen=True, slots=True)
class Proof:
    """All theorems of one build."""

    theorems: tuple[Theorem, ...]
    rules: int
    elements: int
    firewalls: int
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether all of them hold."""
        return all(theorem.holds for theorem in self.theorems)


@dataclass(slots=True)
class _Answers:
    """What one family's worker has found."""

    findings: dict[str, list[Finding]] = field(default_factory=lambda: {each: [] for each in TITLES})
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(TITLES, 0.0))
    counts: dict[str, int] = field(default_factory=dict)
    lives: dict[str, Life] = field(default_factory=dict)

    def add(self, theorem: str, findings: Callable[[], Iterable[Finding]]) -> None:
        """Add what a theorem is contradicted by, and the time that it takes to find."""
        begun = time.monotonic()
        for each in findings():
            self.findings[each.theorem].append(each)
        self.seconds[theorem] += time.monotonic() - begun


def prove(topology: Topology, build: Path) -> Proof:
    """Prove every theorem about the rulesets of a build, each read back from a kernel that has loaded it.

    Args:
        topology: Says what must hold.
        build: The directory that :mod:`netpolicy.build` has made of it.

    Raises:
        LoadError: nft refuses a file of the build.
        MissingError: Not root, python3-nftables is not there, or the diagrams grow beyond their bound.
        RefusedError: A ruleset has something that the proof does not know.
        OSError: A file of the build cannot be read.

    """
    begun = time.monotonic()
    firewalls = tuple(topology.firewalls)
    listed = read_rulesets([[build / firewall / name for name in RULESETS] for firewall in firewalls])
    rulesets = dict(zip(firewalls, listed, strict=True))
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(max_workers=len(Family), mp_context=context) as pool:
        try:
            answers = list(pool.map(_answer, [(topology, build, rulesets, family) for family in Family]))
        except DDMemoryError as full:
            raise MissingError("room: the diagrams of these rulesets take more nodes than there may be") from full
    spaces = [space_for(family, rulesets.values(), ()) for family in Family]
    for firewall, ruleset in rulesets.items():
        answers[0].add(LIVE, partial(dead, firewall, ruleset, [each.lives[firewall] for each in answers], spaces))
    rules = sum(1 for ruleset in listed for _ in ruleset.rules())
    elements = sum(len(each.elements) for ruleset in listed for each in ruleset.collections.values())
    theorems = tuple(
        Theorem(
            id_,
            title,
            _about(id_, topology, answers, rules=rules, elements=elements),
            max(each.seconds[id_] for each in answers),
            tuple(dict.fromkeys(finding for each in answers for finding in each.findings[id_])),
        )
        for id_, title in TITLES.items()
    )
    return Proof(theorems, rules, elements, len(firewalls), time.monotonic() - begun)


def _answer(asked: tuple[Topology, Path, Mapping[str, Ruleset], Family]) -> _Answers:
    """Answer for one family: all of it happens in one manager of diagrams."""
    topology, build, rulesets, family = asked
    answers = _Answers()
    begun = time.monotonic()
    case = prepare(topology, rulesets, family)
    answers.seconds[ACCEPTS] += time.monotonic() - begun
    for firewall in rulesets:
        answers.add(ACCEPTS, partial(exact, case, firewall))
        answers.add(LIMITS, partial(limits, case, firewall))
        answers.add(ORDER, partial(order, case.judged[firewall]))
        answers.add(ENGINES, partial(engines, case, firewall, read_guards(build / firewall)))
        answers.counts[ORDER] = answers.counts.get(ORDER, 0) + sum(1 for _ in unordered(case.judged[firewall]))
    begun = time.monotonic()
    reached = reach(case)
    answers.seconds[REACH] += time.monotonic() - begun
    answers.add(REACH, partial(pairs, case, reached))
    answers.add(INVARIANT, partial(invariants, case, reached))
    answers.add(LIVE, partial(flows, case))
    begun = time.monotonic()
    answers.lives = {firewall: life(judged) for firewall, judged in case.judged.items()}
    answers.seconds[LIVE] += time.monotonic() - begun
    answers.counts.update(_sizes(case))
    return answers


def _sizes(case: Case) -> dict[str, int]:
    """Return how much the theorems are about; of packets, the exponent of the nearest power of two."""
    pairs_of_ends = {
        (each.flow.id, each.source.id, each.destination.id) for some in case.permitted.values() for each in some
    }
    arriving = next(iter(case.judged.values())).arriving
    return {"pairs": len(pairs_of_ends), "bits": case.space.count(arriving).bit_length() - 1}


def _about(id_: str, topology: Topology, answers: list[_Answers], *, rules: int, elements: int) -> str:
    firewalls, segments = len(topology.firewalls), len(topology.segments)
    bits = " and ".join(f"2^{each.counts['bits']}" for each in answers)
    return {
        ACCEPTS: f"{firewalls} firewalls, {bits} packets each (IPv4, IPv6)",
        REACH: f"{segments * (segments - 1):,} ordered pairs of segments and {segments * firewalls:,} of segment and "
        f"firewall in 2 families; flows join {answers[0].counts['pairs']} pairs of ends",
        INVARIANT: f"{len(topology.invariants)} invariants in 2 families",
        ANSWERS: f"{firewalls} firewalls in 2 families",
        LIMITS: f"{sum(bool(flow.limits.rate or flow.limits.connections) for flow in topology.effective_flows())} "
        f"flows with limits, on each of {firewalls} firewalls that they cross",
        LIVE: f"{rules:,} rules, {elements:,} elements, {len(topology.effective_flows())} flows",
        ORDER: f"{sum(each.counts[ORDER] for each in answers)} pairs of chains",
        ENGINES: f"{firewalls} firewalls in 2 families",
    }[id_]
