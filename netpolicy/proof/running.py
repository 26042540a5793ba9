"""The theorems about one firewall that runs: its rules, and all beside them, as the kernel has them now."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from oxidd.util import DDMemoryError

from ids_rules.lock import SidLock
from netpolicy.build.compared import Tree, compare
from netpolicy.proof.case import Finding
from netpolicy.proof.fields import Family
from netpolicy.proof.frames import FRAMES, frames, read_live_frames
from netpolicy.proof.judged import space_for
from netpolicy.proof.model import Ruleset
from netpolicy.proof.prove import TITLES, Answers, Proof, Theorem, answer_each, ask
from netpolicy.proof.read import LOADED, LoadError, MissingError, Runner, read_live
from netpolicy.proof.settled import interfaces_of, network_differs, settings_differ
from netpolicy.proof.surroundings import surroundings
from netpolicy.proof.theorems.configured import configured
from netpolicy.proof.theorems.engines import ENGINES
from netpolicy.proof.theorems.exact import ACCEPTS, ANSWERS, LIMITS
from netpolicy.proof.theorems.files import FILES, files
from netpolicy.proof.theorems.live import LIVE, dead
from netpolicy.proof.theorems.order import ORDER
from netpolicy.proof.theorems.reach import INVARIANT, REACH
from netpolicy.topology.model import Topology

RUNNING = "running"
_TITLE = "the kernel has the firewall's network and settings, and nothing beside its rules decides about packets"
ELSEWHERE = (
    f"{REACH} and {INVARIANT}: they are about all firewalls, and each of the others proves its own rules",
    "whether the engines and the relay run, and with these files: 'drift' and 'status' on the appliance",
)
"""What a proof about one running firewall is not about."""


def prove_running(
    topology: Topology, tree: Tree, firewall: str, lock: SidLock | None = None, run: Runner | None = None
) -> Proof:
    """Prove the theorems about one firewall of what the kernel of this thread's network namespace holds now.

    Args:
        topology: Says what must hold.
        tree: What was read of the build that it should run.
        firewall: Which one it is.
        lock: The numbers of the build's signatures; without, those of a first compilation.
        run: Runs programs inside the namespace; by default, in this process's own.

    Raises:
        LoadError: The rules cannot be listed, or the build has not all of the firewall's files.
        MalformedError, OSError: The kernel does not tell.
        MissingError: As :func:`netpolicy.proof.prove.prove`.
        NetworkError, SettingError: A file of the build says what no firewall's does.
        RefusedError: The rules have something that the proof does not know.

    """
    with tempfile.TemporaryDirectory(prefix="netpolicy-proof-") as directory:
        build = Path(directory)
        for path, content in tree.files.items():
            if path.startswith(f"{firewall}/"):
                place = build / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
        for name in (*LOADED, "ip.batch", "ip6.batch", "sysctl.conf", "forwarding.conf"):
            if not (build / firewall / name).is_file():
                raise LoadError(f"{firewall}/{name}: it is missing")
        return _prove(topology, tree, build, firewall, lock or SidLock(), run)


def _prove(  # noqa: PLR0917 - they are what a proof is about
    topology: Topology, tree: Tree, build: Path, firewall: str, lock: SidLock, run: Runner | None
) -> Proof:
    begun = time.monotonic()
    around = surroundings()
    ruleset, doors = read_live(run), read_live_frames(run)
    beside = [*around.found, *network_differs(build / firewall, interfaces_of(build / firewall))]
    beside += settings_differ(build / firewall)
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(max_workers=len(Family) + 1, mp_context=context) as pool:
        asking = pool.submit(ask, build, (firewall,), tree)
        try:
            answering = pool.map(_answer, [(topology, build, {firewall: ruleset}, family) for family in Family])
            differences = [each for each in compare(topology, lock, tree) if _about(firewall, each.path)]
            answers = list(answering)
        except DDMemoryError as full:
            raise MissingError("room: the diagrams of these rulesets take more nodes than there may be") from full
        looks, unasked, took = asking.result()
    for seen in looks.values():
        answers[0].add(ENGINES, partial(configured, topology, firewall, build / firewall, seen))
    answers[0].seconds[ENGINES] += took
    # What runs is judged, whatever stands in the files that it should have come from.
    answers[0].add(FILES, partial(files, differences, {f"{firewall}/{name}" for name in LOADED}))
    answers[0].add(FRAMES, partial(frames, topology.firewalls[firewall], doors))
    spaces = [space_for(family, [ruleset], ()) for family in Family]
    answers[0].add(LIVE, partial(dead, firewall, ruleset, [each.lives[firewall] for each in answers], spaces))
    rules = sum(1 for _ in ruleset.rules())
    elements = sum(len(each.elements) for each in ruleset.collections.values())
    theorems = (
        Theorem(RUNNING, _TITLE, "now", 0.0, tuple(Finding(RUNNING, firewall, each) for each in beside)),
        *_theorems(answers, len(tree.files)),
    )
    took = time.monotonic() - begun
    return Proof(theorems, (), unasked, (*around.unseen, *ELSEWHERE), rules, elements, 1, took)


def _about(firewall: str, path: str) -> bool:
    return "/" not in path or path.startswith(f"{firewall}/")


def _answer(asked: tuple[Topology, Path, dict[str, Ruleset], Family]) -> Answers:
    """Answer for one family: all of it happens in one manager of diagrams."""
    answers = Answers()
    answer_each(answers, *asked)
    return answers


def _theorems(answers: list[Answers], count: int) -> Iterator[Theorem]:
    bits = " and ".join(f"2^{each.counts['bits']}" for each in answers)
    about = {
        FILES: f"the firewall's files of {count:,}, compiled anew",
        FRAMES: "what the kernel holds now",
        ACCEPTS: f"what the kernel holds now, {bits} packets (IPv4, IPv6)",
        ANSWERS: "in 2 families",
        LIMITS: "of the flows that cross it",
        LIVE: "of what the kernel holds now",
        ORDER: f"{sum(each.counts[ORDER] for each in answers)} pairs of chains",
        ENGINES: "in 2 families, as the engines and the relay read the files of the build",
    }
    for id_, title in TITLES.items():
        if id_ in about:
            found = tuple(dict.fromkeys(finding for each in answers for finding in each.findings[id_]))
            yield Theorem(id_, title, about[id_], max(each.seconds[id_] for each in answers), found)
