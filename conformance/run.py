"""A whole conformance run: a lab without inline engines and one with them, every stage, one report."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from conformance.application.serve import serve_lab
from conformance.exchange import STAGE as EXCHANGE
from conformance.exchange import run_exchanges
from conformance.expect import Expectation
from conformance.inspection import STAGE as INSPECT
from conformance.inspection import run_inspection
from conformance.lab import Lab, LabError
from conformance.lab.preflight import CLIENTS, missing
from conformance.lab.rooted import Root
from conformance.lab.scope import Scope
from conformance.outcome import Expected, Outcome, Status, Verdict
from conformance.pki import Identities, issue_identities
from conformance.probe.batch import FirewallProber, Probe
from conformance.probe.wire import wired
from conformance.results import Results
from conformance.stages.attack import STAGE as ATTACK
from conformance.stages.attack import attack
from conformance.stages.boundary import STAGE as BOUNDARY
from conformance.stages.boundary import boundary
from conformance.stages.frame import STAGE as FRAME
from conformance.stages.frame import run_frame_stage
from conformance.stages.limits import STAGE as LIMITS
from conformance.stages.limits import limits
from conformance.stages.matrix import STAGE as MATRIX
from conformance.stages.matrix import Crossings, crossings, matrix
from conformance.stages.misroute import misroute
from conformance.witness import STAGE as WITNESS
from conformance.witness import run_witnesses
from netpolicy.intent.routing import Routing
from netpolicy.topology.model import Topology

CLIENT = "client"
STAGES = (MATRIX, BOUNDARY, ATTACK, FRAME, LIMITS, EXCHANGE, CLIENT, INSPECT)
"""Those that hold a build against its topology, in the order in which they run."""
ALL_STAGES = (WITNESS, *STAGES)
"""The first one holds the proof's model of rulesets against kernels, and runs only if it is asked for."""

_STAGE_SECONDS = 45.0
"""No stage, and no firewall of one, begins closer than this to the beginning or end of anyone's service hours."""
_INSPECT_SECONDS = 300.0
"""The same of the longest stage, which takes every inspected and relayed flow through all its cases."""

LONGEST: Mapping[str, float] = {
    "lab": 300.0,
    MATRIX: 120.0,
    BOUNDARY: 60.0,
    ATTACK: 120.0,
    FRAME: 600.0,
    LIMITS: 900.0,
    EXCHANGE: 900.0,
    CLIENT: 1800.0,
    INSPECT: 3600.0,
    WITNESS: 3600.0,
}
"""Seconds after which a stage has overrun: many times what it takes. Of the first four for one firewall."""

Progress = Callable[[str], None]


class OverrunError(LabError):
    """A stage took longer than it may: nothing is known of what it was to find out."""

    def __init__(self, stage: str, seconds: float) -> None:
        super().__init__(f"stage '{stage}' has overrun: it took more than {seconds:g} s, and was ended")
        self.stage = stage


@contextmanager
def limited(stage: str, seconds: float) -> Iterator[None]:
    """End what is done inside when it takes too long, whatever it waits for; in the main thread alone.

    Args:
        stage: Of a run, for the message.
        seconds: That it may take.

    Raises:
        OverrunError: It took longer.

    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def overrun(_number: int, _frame: object) -> None:
        raise OverrunError(stage, seconds)

    before = signal.signal(signal.SIGALRM, overrun)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass(slots=True)
class Summary:
    """What a run has found."""

    topology: Topology
    stages: tuple[str, ...]
    firewalls: tuple[str, ...]
    begun: datetime
    results: Results = field(default_factory=Results)
    crossings: Crossings = field(default_factory=Crossings)
    seconds: dict[str, float] = field(default_factory=dict)
    """By stage; ``lab`` is the time to bring it up."""
    longest: Mapping[str, float] = field(default_factory=lambda: LONGEST)
    """By stage: seconds after which it is ended."""
    left_out: list[str] = field(default_factory=list)
    """What was not asked and why: at this time, or where nobody can look into a firewall; a line each for a person."""

    @property
    def exit_code(self) -> int:
        """0 when every verdict matched, nothing was skipped, and there was anything to judge; 1 otherwise."""
        held = self.results.count(Status.PASS) > 0 and not self.results.outcomes
        return 0 if held else 1

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the time inside as a stage's."""
        begun = time.monotonic()
        try:
            with limited(stage, self.longest.get(stage, max(LONGEST.values()))):
                yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - begun


def conform(
    topology: Topology,
    build: Path,
    *,
    firewalls: Sequence[str] | None = None,
    stages: Sequence[str] | None = None,
    progress: Progress = lambda _line: None,
    longest: Mapping[str, float] = LONGEST,
) -> Summary:
    """Run a build in a lab and hold every firewall of it against the topology.

    Args:
        topology: What must hold.
        build: What is run.
        firewalls: Those to probe; all by default.
        stages: Of :data:`ALL_STAGES`; by default :data:`STAGES`.
        progress: Told what is being done, one line at a time.
        longest: By stage, seconds after which it is ended; then the run ends, and says which.

    Raises:
        LabError: The lab cannot be brought up with these files.
        InputError: The topology has no unique routes.

    """
    routing = Routing(topology)
    chosen = STAGES if stages is None else tuple(stage for stage in ALL_STAGES if stage in stages)
    summary = Summary(topology, chosen, tuple(firewalls or topology.firewalls), datetime.now(UTC))
    summary.longest = longest
    expectation = Expectation(topology, routing, summary.begun)
    summary.crossings = crossings(expectation)
    root = Root.find()
    if root is None:
        raise LabError("there is no root of inline engines and relays: make setup, or name one in NETPOLICY_ROOT")
    with tempfile.TemporaryDirectory(prefix="netpolicy-") as directory:
        run = _Run(build, root, Path(directory), expectation, summary, progress)
        try:
            if set(chosen) - {INSPECT}:
                run.without_engines()
            if {INSPECT, FRAME} & set(chosen) and not summary.results.count(Status.FAULT):
                run.with_engines()
        except OverrunError as overrun:
            denied = Expected(Verdict.DENY)
            summary.results.add(Outcome(overrun.stage, "", "", "its time", 4, None, denied, Status.ERROR, str(overrun)))
    summary.left_out.extend(_untried(summary, expectation))
    return summary


def _untried(summary: Summary, expectation: Expectation) -> Iterator[str]:
    """Yield what a run has not tried, since nothing was there to try, or not at its time; a line each for a person."""
    stages = {passed.stage for passed in summary.results.passed} | {each.stage for each in summary.results.outcomes}
    for stage in summary.stages:
        if stage not in stages:
            yield f"stage {stage}: nothing was there to try"
    for flow in expectation.topology.effective_flows():
        reason = expectation.closed(flow)
        if reason is not None:
            yield f"flow {flow.id} ({reason.value}): that it is closed was tried, and not what passes while it is open"


@dataclass(frozen=True, slots=True)
class _Run:
    """The parts of a run, in labs of their own."""

    build: Path
    root: Root
    work: Path
    expectation: Expectation
    summary: Summary
    progress: Progress

    def without_engines(self) -> None:
        """Hold kernels, relays and endpoints to the topology, each as if there were no engine before them."""
        chosen, summary = self.summary.stages, self.summary
        begun = time.monotonic()
        with ExitStack() as stack:
            with limited("lab", summary.longest["lab"]):
                lab = stack.enter_context(Lab(summary.topology, self.build, self.root, inline=False))
            identities = self._identities("kernels")
            lab.start_relays(identities.directory)
            summary.seconds["lab"] = time.monotonic() - begun
            self.progress(f"lab of {len(lab.namespaces)} namespaces up, {len(lab.relays)} relays")
            scope = Scope(lab)
            probing = [stage for stage in chosen if stage in {MATRIX, BOUNDARY, ATTACK}]
            if probing or {FRAME, LIMITS, WITNESS} & set(chosen):
                with lab.isolated(), _one_processor():
                    if WITNESS in chosen and not self._witness(lab, scope):
                        return  # what follows is asked when model and kernel agree
                    if probing:
                        self._probe(lab, scope)
                    if FRAME in chosen:
                        self._frames(lab, scope)
                    if LIMITS in chosen:
                        self._set_clock()
                        with summary.timed(LIMITS):
                            summary.results.extend(limits(self.expectation, lab, scope, list(summary.firewalls)))
                for firewall in summary.firewalls:
                    lab.flush_conntrack(firewall)
                    lab.load(firewall, lab.build / firewall / "nftables.nft")
            if EXCHANGE in chosen:
                self._set_clock()
                with summary.timed(EXCHANGE):
                    self._exchange(lab, identities, scope)
            if CLIENT in chosen:
                self._set_clock()
                with summary.timed(CLIENT):
                    self._clients(lab, scope)

    def with_engines(self) -> None:
        """Hold engines and relays to the topology: what is permitted passes all of them, and nothing else does."""
        topology, identities = self.summary.topology, self._identities("engines")
        first = INSPECT if INSPECT in self.summary.stages else FRAME
        with ExitStack() as stack:
            with self.summary.timed(first):
                lab = stack.enter_context(Lab(topology, self.build, self.root))
            lab.pin(identities.fingerprints([*topology.nodes.values(), *topology.firewalls.values()]))
            lab.start_relays(identities.directory)
            self.progress(f"{len(lab.engines)} inline engines and {len(lab.relays)} relays up")
            scope = Scope(lab)
            if INSPECT in self.summary.stages:
                with self.summary.timed(INSPECT):
                    self._inspect(lab, identities, scope)
            if FRAME in self.summary.stages:
                with lab.isolated(), _one_processor():
                    self._frames(lab, scope)

    def _inspect(self, lab: Lab, identities: Identities, scope: Scope) -> None:
        self._set_clock()
        with serve_lab(lab, identities) as serving:
            self.summary.results.extend(
                run_exchanges(
                    lab,
                    serving,
                    identities,
                    self.expectation,
                    scope,
                    progress=self.progress,
                    stage=INSPECT,
                    refusals=False,
                ),
            )
        self.expectation.advance(_INSPECT_SECONDS, self.progress)
        self.summary.results.extend(run_inspection(lab, identities, self.expectation, scope, progress=self.progress))

    def _frames(self, lab: Lab, scope: Scope) -> None:
        summary = self.summary
        self._set_clock()
        with summary.timed(FRAME):
            count = run_frame_stage(lab, scope, self.expectation, summary.firewalls, summary.results)
        self.progress(f"{count} frames {'before engines' if lab.engines else 'without engines'}")

    def _probe(self, lab: Lab, scope: Scope) -> None:
        """Run the stages that ask one firewall at a time."""
        summary, expectation = self.summary, self.expectation
        for number, firewall in enumerate(summary.firewalls, 1):
            known = summary.topology.firewalls[firewall]
            permits = expectation.permits[firewall]
            asked: dict[str, Iterator[Probe]] = {
                MATRIX: matrix(expectation, known, summary.crossings.by_firewall[firewall]),
                BOUNDARY: boundary(known, permits),
                ATTACK: attack(expectation, known),
            }
            self._set_clock()
            with wired(lab, known, scope) as wire:
                judge = expectation.judge(firewall)
                prober = FirewallProber(lab, summary.topology, judge, wire, summary.results, permits)
                for stage, probes in asked.items():
                    if stage in summary.stages:
                        with summary.timed(stage):
                            count = prober.run(probes) + (misroute(prober) if stage == ATTACK else 0)
                        self.progress(f"[{number}/{len(summary.firewalls)}] {firewall}: {stage}, {count} probes")

    def _witness(self, lab: Lab, scope: Scope) -> bool:
        """Hold the proof's model against every kernel; tell whether they agree."""
        summary = self.summary
        with summary.timed(WITNESS):
            return run_witnesses(
                lab, scope, summary.firewalls, summary.results, progress=self.progress, set_clock=self._set_clock
            )

    def _exchange(self, lab: Lab, identities: Identities, scope: Scope) -> None:
        with serve_lab(lab, identities) as serving:
            self.summary.results.extend(
                run_exchanges(lab, serving, identities, self.expectation, scope, progress=self.progress)
            )

    def _identities(self, part: str) -> Identities:
        return issue_identities(self.summary.topology, self.work / part, now=datetime.now(UTC))

    def _clients(self, lab: Lab, scope: Scope) -> None:
        lacking = [each for each in missing() if each.needed_for == CLIENTS]
        for each in lacking:
            skipped = Expected(Verdict.DENY)
            self.summary.results.add(
                Outcome(CLIENT, "", "", each.capability, 4, None, skipped, Status.SKIP, each.reason)
            )
        if not lacking:
            from conformance.clients import run_clients  # noqa: PLC0415 - stands on packages that only this stage needs

            self.summary.results.extend(
                run_clients(lab, self.expectation, scope, self.summary.firewalls, self.progress)
            )

    def _set_clock(self) -> None:
        self.expectation.advance(_STAGE_SECONDS, self.progress)


@contextmanager
def _one_processor() -> Iterator[None]:
    """Keep this thread on one processor: frames are then handled in the order in which they are sent."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
