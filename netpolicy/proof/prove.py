"""All theorems about a build: proven, or answered with what contradicts them."""

from __future__ import annotations

import gc
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from oxidd.util import DDMemoryError

from ids_rules.lock import SidLock
from netpolicy.build.compared import Difference, Kind, Tree, compare, read_tree
from netpolicy.build.vendor import built_for
from netpolicy.proof.case import Case, Finding, prepare
from netpolicy.proof.fields import Family
from netpolicy.proof.frames import FRAMES, frames, read_frames
from netpolicy.proof.judged import space_for
from netpolicy.proof.model import Ruleset
from netpolicy.proof.read import LOADED, RULESETS, LoadError, MissingError, read_builds
from netpolicy.proof.theorems.configured import configured
from netpolicy.proof.theorems.engines import ENGINES, engines, read_guards
from netpolicy.proof.theorems.exact import ACCEPTS, ANSWERS, LIMITS, exact, limits
from netpolicy.proof.theorems.files import FILES, files
from netpolicy.proof.theorems.live import LIVE, Life, dead, flows, life
from netpolicy.proof.theorems.order import ORDER, order, unordered
from netpolicy.proof.theorems.reach import INVARIANT, REACH, invariants, pairs, reach
from netpolicy.rooted import Root, RootError
from netpolicy.rooted.build import Look, look
from netpolicy.topology.model import Topology

_LATER = 5
"""How much nicer workers are that others do not wait for (nice(2))."""

RULESET_THEOREMS = "exact, pairs, invariant, answers, limits, live, order, engines"
"""What judges a ruleset, whoever wrote it."""

TITLES = {
    FILES: "every file is what the compiler writes, or is judged by a theorem",
    FRAMES: "each interface takes plain IP of its families, and questions for its own addresses, and no other frame",
    ACCEPTS: "each firewall accepts exactly what its flows say",
    REACH: "between all pairs of segments, on every way, under any source address, exactly the flows' connections pass",
    INVARIANT: "every invariant of the topology holds",
    ANSWERS: "answers pass exactly for permitted connections; ICMP errors of a connection: none",
    LIMITS: "new connections are held to the limits of their flows",
    LIVE: "no rule, element or flow is dead, hidden or needless",
    ORDER: "base chains of one hook and priority commute",
    ENGINES: "each accepted connection crosses an engine or a relay on each firewall, which are told to be closed",
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
    judged: tuple[str, ...]
    """Files that are not the compiler's, but hold by what they do: each with the first line that differs."""
    unasked: str | None
    """Why the programs that the build is for were not asked about it; None if they were."""
    unseen: tuple[str, ...]
    """What it is not about, with the reason."""
    rules: int
    elements: int
    firewalls: int
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether all of them hold, and nothing was left unasked."""
        return self.unasked is None and not self.contradicted

    @property
    def contradicted(self) -> bool:
        """Whether one of them does not hold."""
        return not all(theorem.holds for theorem in self.theorems)


@dataclass(slots=True)
class Answers:
    """What one family's worker has found, or what was found beside them."""

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


def prove(topology: Topology, build: Path, lock: SidLock | None = None) -> Proof:
    """Prove every theorem about a build, its rulesets each read back from a kernel that has loaded it.

    The build is read once, and what was read is what is proven, whatever becomes of the directory meanwhile.

    Args:
        topology: Says what must hold; with the certificates that are pinned, if any are.
        build: The directory that :mod:`netpolicy.build` has made of it.
        lock: The numbers of its signatures; without, those of a first compilation.

    Raises:
        LoadError: nft refuses a file of the build.
        MissingError: Not root, python3-nftables is not there, or the diagrams grow beyond their bound.
        RefusedError: A ruleset has something that the proof does not know.
        InputError: The topology does not compile.
        OSError: A file of the build cannot be read.

    """
    return prove_tree(topology, read_tree(build), lock)


def prove_tree(topology: Topology, tree: Tree, lock: SidLock | None = None) -> Proof:
    """Prove every theorem about what was read of a build; see :func:`prove`."""
    with tempfile.TemporaryDirectory(prefix="netpolicy-proof-") as directory:
        build = Path(directory)
        for path, content in tree.files.items():
            place = build / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        return _prove(topology, tree, build, lock or SidLock())


def _prove(topology: Topology, tree: Tree, build: Path, lock: SidLock) -> Proof:
    begun = time.monotonic()
    firewalls = tuple(topology.firewalls)
    for path in sorted({f"{firewall}/{name}" for firewall in firewalls for name in LOADED} - set(tree.files)):
        said = next((str(each) for each in tree.irregular if each.path == path), f"{path}: it is missing")
        raise LoadError(said)
    with ExitStack() as stack:
        # Programs are asked while kernels list rulesets; then the diagrams of both families are made side by side, and
        # nothing takes time from those of IPv6: their addresses have four times the bits, and all wait for them.
        asking = stack.enter_context(_worker(_LATER)).submit(ask, build, firewalls, tree)
        listed = read_builds(build / firewall for firewall in firewalls)
        rulesets = dict(zip(firewalls, listed, strict=True))
        asked = _Asked(topology, build, rulesets)
        try:
            answering = [
                stack.enter_context(_worker(nice, asked)).submit(_answer, family)
                for family, nice in ((Family.IPV6, 0), (Family.IPV4, _LATER))
            ]
            # Meanwhile: what takes no diagrams.
            beside = Answers()
            comparing = time.monotonic()
            differences = compare(topology, lock, tree)
            beside.seconds[FILES] = time.monotonic() - comparing
            taken = read_frames(
                [
                    ([build / firewall / name for name in LOADED], [each.name for each in known.interfaces])
                    for firewall, known in topology.firewalls.items()
                ]
            )
            looks, unasked, beside.seconds[ENGINES] = asking.result()
            for firewall, seen in looks.items():
                beside.add(ENGINES, partial(configured, topology, firewall, build / firewall, seen))
            answers = [each.result() for each in reversed(answering)]
        except DDMemoryError as full:
            raise MissingError("room: the diagrams of these rulesets take more nodes than there may be") from full
    judged = {f"{firewall}/{name}" for firewall in firewalls for name in RULESETS}
    beside.add(FILES, partial(files, differences, judged))
    for known, doors in zip(topology.firewalls.values(), taken, strict=True):
        beside.add(FRAMES, partial(frames, known, doors))
    spaces = [space_for(family, rulesets.values(), ()) for family in Family]
    for firewall, ruleset in rulesets.items():
        beside.add(LIVE, partial(dead, firewall, ruleset, [each.lives[firewall] for each in answers], spaces))
    size = _Size(len(tree.files), sum(1 for each in listed for _ in each.rules()), _elements(listed))
    theorems = tuple(
        Theorem(
            id_,
            title,
            _about(id_, topology, answers, size),
            max(each.seconds[id_] for each in (beside, *answers)),
            tuple(dict.fromkeys(finding for each in (*answers, beside) for finding in each.findings[id_])),
        )
        for id_, title in TITLES.items()
    )
    told = tuple(_told(differences, judged))
    return Proof(theorems, told, unasked, (), size.rules, size.elements, len(firewalls), time.monotonic() - begun)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What workers answer about."""

    topology: Topology
    build: Path
    rulesets: Mapping[str, Ruleset]


_taken: list[_Asked] = []
"""In a worker: what it was forked with. To write rulesets into a pipe and to read them takes longer than theorems."""


def _worker(nice: int, asked: _Asked | None = None) -> ProcessPoolExecutor:
    """Return a process beside this one that is so much nicer, and has what it is asked about."""
    context = multiprocessing.get_context("fork")
    return ProcessPoolExecutor(max_workers=1, mp_context=context, initializer=_take, initargs=(nice, asked))


def _take(nice: int, asked: _Asked | None) -> None:
    os.nice(nice)
    gc.freeze()  # what it was forked with stays
    _taken[:] = [] if asked is None else [asked]


def ask(build: Path, firewalls: tuple[str, ...], tree: Tree) -> tuple[dict[str, Look], str | None, float]:
    """Return what the programs say of each firewall's files, or why they were not asked; and how long it took."""
    begun = time.monotonic()
    root = Root.find()
    if root is None:
        return {}, "there is no root of the inline engine and the relay: make setup", 0.0
    try:
        suricata = root.suricata
        if (version := built_for(tree.files)) != suricata:
            return {}, f"the build is for Suricata {version}, and {root.directory} has {suricata.value}", 0.0
        return look(root, build, firewalls), None, time.monotonic() - begun
    except RootError as lacking:
        return {}, str(lacking), 0.0


def _elements(rulesets: Iterable[Ruleset]) -> int:
    return sum(len(each.elements) for ruleset in rulesets for each in ruleset.collections.values())


def _told(differences: Iterable[Difference], judged: Collection[str]) -> Iterator[str]:
    """Yield the files that are judged and not compared, each once."""
    told: dict[str, Difference] = {}
    for each in differences:
        if each.path in judged and each.kind is Kind.ALTERED:
            told[each.path] = each
    for each in told.values():
        yield f"{each}; judged by {RULESET_THEOREMS}"


def _answer(family: Family) -> Answers:
    """Answer for one family, in a worker: all of it happens in one manager of diagrams."""
    (asked,) = _taken
    answers = Answers()
    case = answer_each(answers, asked.topology, asked.build, asked.rulesets, family)
    begun = time.monotonic()
    reached = reach(case)
    answers.seconds[REACH] += time.monotonic() - begun
    answers.add(REACH, partial(pairs, case, reached))
    answers.add(INVARIANT, partial(invariants, case, reached))
    return answers


def answer_each(
    answers: Answers, topology: Topology, build: Path, rulesets: Mapping[str, Ruleset], family: Family
) -> Case:
    """Answer what is about single firewalls, for one family, and return what it was asked of."""
    begun = time.monotonic()
    case = prepare(topology, rulesets, family)
    answers.seconds[ACCEPTS] += time.monotonic() - begun
    for firewall in rulesets:
        answers.add(ACCEPTS, partial(exact, case, firewall))
        answers.add(LIMITS, partial(limits, case, firewall))
        answers.add(ORDER, partial(order, case.judged[firewall]))
        answers.add(ENGINES, partial(engines, case, firewall, read_guards(build / firewall)))
        answers.counts[ORDER] = answers.counts.get(ORDER, 0) + sum(1 for _ in unordered(case.judged[firewall]))
    answers.add(LIVE, partial(flows, case))
    begun = time.monotonic()
    answers.lives = {firewall: life(judged) for firewall, judged in case.judged.items()}
    answers.seconds[LIVE] += time.monotonic() - begun
    answers.counts.update(_sizes(case))
    return case


def _sizes(case: Case) -> dict[str, int]:
    """Return how much the theorems are about; of packets, the exponent of the nearest power of two."""
    pairs_of_ends = {
        (each.flow.id, each.source.id, each.destination.id) for some in case.permitted.values() for each in some
    }
    arriving = next(iter(case.judged.values())).arriving
    return {"pairs": len(pairs_of_ends), "bits": case.space.count(arriving).bit_length() - 1}


@dataclass(frozen=True, slots=True)
class _Size:
    """Of a build."""

    files: int
    rules: int
    elements: int


def _about(id_: str, topology: Topology, answers: list[Answers], size: _Size) -> str:
    firewalls, segments = len(topology.firewalls), len(topology.segments)
    interfaces = sum(len(each.interfaces) for each in topology.firewalls.values())
    bits = " and ".join(f"2^{each.counts['bits']}" for each in answers)
    return {
        FRAMES: f"{firewalls} firewalls, {interfaces} interfaces",
        FILES: f"{size.files:,} files, compiled anew",
        ACCEPTS: f"{firewalls} firewalls, {bits} packets each (IPv4, IPv6)",
        REACH: f"{segments * (segments - 1):,} ordered pairs of segments and {segments * firewalls:,} of segment and "
        f"firewall in 2 families; flows join {answers[0].counts['pairs']} pairs of ends",
        INVARIANT: f"{len(topology.invariants)} invariants in 2 families",
        ANSWERS: f"{firewalls} firewalls in 2 families",
        LIMITS: f"{len(topology.effective_flows())} flows, on each of {firewalls} firewalls that they cross",
        LIVE: f"{size.rules:,} rules, {size.elements:,} elements, {len(topology.effective_flows())} flows",
        ORDER: f"{sum(each.counts[ORDER] for each in answers)} pairs of chains",
        ENGINES: f"{firewalls} firewalls in 2 families, as their engines and relays read their own files",
    }[id_]
