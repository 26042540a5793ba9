"""One firewall that runs outside of the lab, held to the topology by what its network cards take and give.

The same probes, endpoints and clients as in a lab that runs all firewalls.  What takes a look inside is left out, and
said: counters, what engines and relays tell, and rules or routes that are changed for a test.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from conformance.application.book import Exchange, exchanges
from conformance.application.serve import serve_lab
from conformance.clients import run_clients
from conformance.exchange import STAGE as EXCHANGE
from conformance.exchange import run_exchanges
from conformance.expect import Expectation
from conformance.lab import Lab, LabError
from conformance.lab.rooted import Root
from conformance.lab.scope import Scope
from conformance.pki import Identities, issue_identities
from conformance.probe.batch import FirewallProber, Probe
from conformance.probe.wire import wired
from conformance.run import CLIENT, Progress, Summary
from conformance.stages.attack import STAGE as ATTACK
from conformance.stages.attack import attack
from conformance.stages.boundary import STAGE as BOUNDARY
from conformance.stages.boundary import boundary
from conformance.stages.matrix import STAGE as MATRIX
from conformance.stages.matrix import crossings, matrix
from netpolicy.intent.routing import Routing
from netpolicy.topology.model import Assurance, Firewall, Topology

STAGES = (MATRIX, BOUNDARY, ATTACK, EXCHANGE, CLIENT)
"""Those that can be asked from outside, in the order in which they run."""

PowerOn = Callable[[Lab, Identities], AbstractContextManager[None]]
"""Runs the firewall while inside, its interfaces on the lab's taps, with its own certificate; entered, it enforces."""

_STAGE_SECONDS = 120.0
_ALWAYS_LEFT_OUT = (
    "the counters: that a denied packet was dropped for the reason that the topology expects",
    "attack: permitted packets sent astray by a changed route",
    "limits: a ruleset loaded anew for each trial",
    "inspect: what the engine says of each case",
)


def conform_elsewhere(
    topology: Topology,
    build: Path,
    firewall: str,
    power_on: PowerOn,
    *,
    stages: Sequence[str] | None = None,
    progress: Progress = lambda _line: None,
) -> Summary:
    """Hold one firewall, which someone else runs, against the topology.

    Args:
        topology: What must hold.
        build: What all other firewalls run, in a lab.
        firewall: Its id.
        power_on: Runs it.
        stages: Of :data:`STAGES`; all by default.
        progress: Told what is being done, one line at a time.

    Raises:
        LabError: The lab cannot be brought up with these files.
        InputError: The topology has no unique routes.

    """
    chosen = STAGES if stages is None else tuple(stage for stage in STAGES if stage in stages)
    summary = Summary(topology, chosen, (firewall,), datetime.now(UTC))
    summary.longest = {}  # a machine that is emulated takes many times as long
    expectation = Expectation(topology, Routing(topology), summary.begun)
    summary.crossings = crossings(expectation)
    root = Root.find()
    if root is None and any(flow.assurance is Assurance.TERMINATE for flow in topology.flows.values()):
        raise LabError("there is no root of relays: make setup, or name one in NETPOLICY_ROOT")
    run = _Run(summary, expectation, topology.firewalls[firewall], progress)
    summary.left_out.extend(_ALWAYS_LEFT_OUT)
    with tempfile.TemporaryDirectory(prefix="netpolicy-") as directory:
        identities = issue_identities(topology, Path(directory) / "identities", now=datetime.now(UTC))
        begun = time.monotonic()
        with Lab(topology, build, root, inline=False, elsewhere={firewall}) as lab:
            lab.start_relays(identities.directory)
            with power_on(lab, identities):
                summary.seconds["lab"] = time.monotonic() - begun
                run.all_stages(lab, identities)
    return summary


@dataclass(frozen=True, slots=True)
class _Run:
    """The stages of one run."""

    summary: Summary
    expectation: Expectation
    firewall: Firewall
    progress: Progress

    def all_stages(self, lab: Lab, identities: Identities) -> None:
        """Run what was chosen."""
        chosen, scope = self.summary.stages, Scope(lab)
        if {MATRIX, BOUNDARY, ATTACK} & set(chosen):
            with lab.isolated():
                self._probe(lab, scope)
        if EXCHANGE in chosen:
            self.expectation.advance(_STAGE_SECONDS, self.progress)
            with self.summary.timed(EXCHANGE), serve_lab(lab, identities) as serving:
                self._leave_out_exchanges(lab)
                self.summary.results.extend(
                    run_exchanges(
                        lab,
                        serving,
                        identities,
                        self.expectation,
                        scope,
                        progress=self.progress,
                        wanted=self._crosses,
                    )
                )
        if CLIENT in chosen:
            self.expectation.advance(_STAGE_SECONDS, self.progress)
            with self.summary.timed(CLIENT):
                self.summary.results.extend(
                    run_clients(lab, self.expectation, scope, [self.firewall.id], self.progress)
                )

    def _probe(self, lab: Lab, scope: Scope) -> None:
        expectation, known = self.expectation, self.firewall
        permits = expectation.permits[known.id]
        asked: dict[str, Iterator[Probe]] = {
            MATRIX: matrix(expectation, known, self.summary.crossings.by_firewall[known.id]),
            BOUNDARY: boundary(known, permits),
            ATTACK: attack(expectation, known),
        }
        with wired(lab, known, scope) as wire:
            results = self.summary.results
            prober = FirewallProber(lab, expectation.topology, expectation.judge(known.id), wire, results, permits)
            for stage, probes in asked.items():
                if stage in self.summary.stages:
                    self.expectation.advance(_STAGE_SECONDS, self.progress)
                    with self.summary.timed(stage):
                        count = prober.run(probes)
                    self.progress(f"{known.id}: {stage}, {count} probes in {self.summary.seconds[stage]:.1f} s")

    def _crosses(self, each: Exchange) -> bool:
        """Tell whether a connection crosses the firewall, and ends at someone in the lab."""
        if each.destination.id == self.firewall.id:
            return False
        routing = self.expectation.routing
        end = routing.end_of(each.source, each.destination)
        path = routing.path(each.source.interface.segment, end.segment) if end is not None else None
        return any(hop.firewall == self.firewall.id for hop in path or ())

    def _leave_out_exchanges(self, lab: Lab) -> None:
        every = list(exchanges(lab.topology, self.expectation.routing))
        own = sum(each.destination.id == self.firewall.id for each in every)
        if own:
            self.summary.left_out.append(f"exchange: {own} with the firewall's own endpoint")
        if any(self.firewall.id in each.relays for each in every):
            self.summary.left_out.append(
                f"exchange: why {self.firewall.id}'s relay refuses a client, and clients revoked since it was started"
            )
