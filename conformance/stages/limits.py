"""Connection rates and concurrent connections: as many as the flow may have pass, and the next does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from conformance.expect import Expectation, Permitted
from conformance.lab import Lab
from conformance.lab.scope import Scope
from conformance.outcome import Expected, Outcome, Status, Verdict
from conformance.probe.neighbour import is_answer, question
from conformance.probe.shape import Shape, number_of, template
from conformance.probe.wire import Wire, WireError, macs_to, wired
from netpolicy.reasons import DenyReason, deny_counter, flow_counter
from netpolicy.topology.model import Firewall

STAGE = "limits"

_PATIENCE = 5.0
_FIRST_NUMBER = 0xE0000000
_FIRST_PORT = 20000
_EXCESS = 5


def limits(expectation: Expectation, lab: Lab, scope: Scope, firewalls: list[str]) -> list[Outcome]:
    """Hold each limited flow to its limits at one of the firewalls it crosses; firewalls are tried side by side.

    A flow outside its service hours has nothing to limit; the other stages see to it that it is closed.
    """
    chosen: dict[str, list[Permitted]] = {}
    for permits in _by_flow(expectation, firewalls):
        flow = permits[0].flow
        if (flow.limits.rate or flow.limits.connections) and expectation.closed(flow) is None:
            least = min(permits, key=lambda each: len(chosen.get(each.firewall, ())))
            chosen.setdefault(least.firewall, []).append(least)

    def tried(firewall: str) -> list[Outcome]:
        with wired(lab, expectation.topology.firewalls[firewall], scope) as wire:
            trials = [_Trial(lab, expectation, wire, permitted) for permitted in chosen[firewall]]
            return [outcome for trial in trials for outcome in trial.run()]

    with ThreadPoolExecutor(max_workers=max(1, len(chosen))) as pool:
        return [outcome for outcomes in pool.map(tried, chosen) for outcome in outcomes]


def _by_flow(expectation: Expectation, firewalls: list[str]) -> Iterator[list[Permitted]]:
    """Yield the permits of each flow on the firewalls, transit before those that end on the firewall itself."""
    found: dict[str, list[Permitted]] = {}
    for firewall in firewalls:
        for permitted in expectation.permits[firewall]:
            found.setdefault(permitted.flow.id, []).append(permitted)
    for permits in found.values():
        yield [each for each in permits if each.ends[1] is not None] or permits


@dataclass(slots=True)
class _Trial:
    """One flow at one firewall."""

    lab: Lab
    expectation: Expectation
    wire: Wire
    permitted: Permitted
    _number: int = _FIRST_NUMBER

    @property
    def _firewall(self) -> Firewall:
        return self.expectation.topology.firewalls[self.permitted.firewall]

    def run(self) -> Iterator[Outcome]:
        rate, connections = self.permitted.flow.limits.rate, self.permitted.flow.limits.connections
        if rate is not None and (connections is None or rate + _EXCESS <= connections):
            yield self._tried(f"{rate} new connections per second", DenyReason.RATE, lambda: self._rate(rate))
        if connections is not None:
            label = f"{connections} concurrent connections"
            yield self._tried(label, DenyReason.CONNECTIONS, lambda: self._connections(rate, connections))

    def _tried(self, label: str, reason: DenyReason, trial: Callable[[], tuple[Status, str]]) -> Outcome:
        self.lab.load(self._firewall.id, self.lab.build / self._firewall.id / "nftables.nft")
        self.lab.flush_conntrack(self._firewall.id)
        try:
            status, observed = trial()
        except WireError as lost:
            status, observed = Status.ERROR, str(lost)
        return Outcome(
            stage=STAGE,
            source=self.permitted.source.id,
            destination=self.permitted.destination.id,
            probe=f"{self.permitted.flow.id}: {label}",
            family=self.permitted.ends[2].version,
            firewall=self._firewall.id,
            expected=Expected(Verdict.DENY, self.permitted.flow.id, reason),
            status=status,
            observed=observed,
        )

    def _rate(self, rate: int) -> tuple[Status, str]:
        connections = self.permitted.flow.limits.connections
        tried = rate + max(_EXCESS, rate)  # more than comes back while they are being sent
        if connections is not None:
            tried = min(tried, connections)
        before = self.lab.counters(self._firewall.id)
        begun = time.monotonic()
        passed = self._open(tried)
        most = rate + int((time.monotonic() - begun) * rate) + 1
        refused = self._rise(before, deny_counter(DenyReason.RATE))
        observed = f"of {tried} at once {passed} passed and {refused} were refused for their rate"
        if not refused and most >= tried:
            return Status.ERROR, f"{observed}; this machine is too slow to exceed the limit"
        held = rate <= passed <= most and 0 < refused == tried - passed
        return (Status.PASS if held else Status.DEVIATION), observed

    def _connections(self, rate: int | None, connections: int) -> tuple[Status, str]:
        before = self.lab.counters(self._firewall.id)
        passed = 0
        step = min(connections, max(1, rate // 2) if rate else connections)
        pause = step / rate * 1.1 if rate else 0.0
        while passed < connections:
            opened = self._open(min(step, connections - passed))
            if not opened:
                return Status.DEVIATION, f"only {passed} of {connections} connections could be opened"
            passed += opened
            time.sleep(pause)
        further = self._open(min(_EXCESS, step))
        refused = self._rise(before, deny_counter(DenyReason.CONNECTIONS))
        observed = f"{passed} passed; of {min(_EXCESS, step)} more {further} passed and {refused} were refused"
        return (Status.PASS if further == 0 and refused == min(_EXCESS, step) else Status.DEVIATION), observed

    def _rise(self, before: dict[str, int], counter: str) -> int:
        return self.lab.counters(self._firewall.id)[counter] - before[counter]

    def _open(self, count: int) -> int:
        """Begin so many connections; return how many came through, or for the firewall itself, were counted."""
        ingress, egress, source, destination = self.permitted.ends
        shape = template(Shape.SYN, source.version)
        macs = macs_to(self._firewall, ingress)
        port = self.permitted.ports[0].first
        frames = []
        for _ in range(count):
            source_port = _FIRST_PORT + self._number % 40000
            frames.append(shape.frame(self._number, macs, source, destination, source_port=source_port, port=port))
            self._number += 1
        interface = next(each for each in self._firewall.interfaces if each.name == ingress)
        counter = flow_counter(self.permitted.flow.id)
        before = self.lab.counters(self._firewall.id)
        frames.append(question(interface, self.expectation.topology))
        seen = self.wire.exchange(ingress, frames, is_answer, _PATIENCE)
        if self.permitted.egress is None:
            return self._rise(before, counter)
        return sum(name == egress and number_of(frame) is not None for name, frame in seen.left)
