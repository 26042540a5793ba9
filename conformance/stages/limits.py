"""Connection rates and concurrent connections: as many as a flow or a source may have pass, and the next does not."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from conformance.expect import Expectation, Permitted
from conformance.lab import Lab
from conformance.lab.scope import Scope
from conformance.outcome import Expected, Outcome, Status, Verdict
from conformance.probe.neighbour import is_answer, question
from conformance.probe.shape import Shape, number_of, template
from conformance.probe.wire import Wire, WireError, macs_to, wired
from netpolicy.reasons import DenyReason, deny_counter, flow_counter
from netpolicy.topology.ends import SourceLimits, source_limits
from netpolicy.topology.model import Address, Firewall, Flow

STAGE = "limits"

_PATIENCE = 5.0
_FIRST_NUMBER = 0xE0000000
_FIRST_PORT = 20000
_EXCESS = 5
_HANDSHAKES = [Path("/proc/sys/net/netfilter", f"nf_conntrack_tcp_timeout_{each}") for each in ("syn_sent", "syn_recv")]
_HELD = "3600"
"""Seconds."""


def limits(expectation: Expectation, lab: Lab, scope: Scope, firewalls: list[str]) -> list[Outcome]:
    """Hold each flow to its limits at one of the firewalls it crosses; firewalls are tried side by side.

    That is one that most of its sources cross: what they share is only reached by several of them.  A flow outside its
    service hours has nothing to limit; the other stages see to it that it is closed.
    """
    chosen: dict[str, list[list[Permitted]]] = {}
    for permits in _by_flow(expectation, firewalls):
        flow = permits[0].flow
        if expectation.closed(flow) is None:
            sources = _by_firewall(permits)
            most = max(map(len, sources.values()))
            places = [firewall for firewall, found in sources.items() if len(found) == most]
            least = min(places, key=lambda firewall: len(chosen.get(firewall, ())))
            chosen.setdefault(least, []).append(sources[least])

    def tried(firewall: str) -> list[Outcome]:
        with wired(lab, expectation.topology.firewalls[firewall], scope) as wire:
            trials = [_Trial(lab, expectation, wire, sources) for sources in chosen[firewall]]
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


def _by_firewall(permits: list[Permitted]) -> dict[str, list[Permitted]]:
    """Return one permit of each source address, by firewall."""
    found: dict[str, dict[Address, Permitted]] = {}
    for each in permits:
        found.setdefault(each.firewall, {}).setdefault(each.ends[2], each)
    return {firewall: [*sources.values()] for firewall, sources in found.items()}


@dataclass(slots=True)
class _Trial:
    """One flow at one firewall."""

    lab: Lab
    expectation: Expectation
    wire: Wire
    sources: list[Permitted]
    """One permit of each source address."""
    _number: int = _FIRST_NUMBER
    _turn: int = 0
    _each: SourceLimits = field(init=False)

    def __post_init__(self) -> None:
        self._each = source_limits(self.expectation.topology, self.flow)

    @property
    def flow(self) -> Flow:
        """The flow."""
        return self.sources[0].flow

    @property
    def _firewall(self) -> Firewall:
        return self.expectation.topology.firewalls[self.sources[0].firewall]

    def run(self) -> Iterator[Outcome]:
        """Yield what came of one source's bounds, and of those that all share as far as they can be reached."""
        one, many, whole, each = self.sources[:1], self.sources, self.flow.limits, self._each
        if each.rate is not None and _comes_first(each.rate, each.connections, whole.connections):
            label, rate = f"{each.rate} new connections per second from one source", each.rate
            yield self._tried(label, DenyReason.SOURCE_RATE, lambda: self._rate(one, rate, DenyReason.SOURCE_RATE))
        if each.connections is not None:
            label, count = f"{each.connections} concurrent connections from one source", each.connections
            reason = DenyReason.SOURCE_CONNECTIONS
            yield self._tried(label, reason, lambda: self._connections(one, count, reason))
        reach = len(many) * each.rate if each.rate is not None else None
        if _comes_first(whole.rate, reach, self._reach, whole.connections):
            label, total = f"{whole.rate} new connections per second", whole.rate
            yield self._tried(label, DenyReason.RATE, lambda: self._rate(many, total, DenyReason.RATE))
        if self._reach is None or self._reach > whole.connections:
            label, all_ = f"{whole.connections} concurrent connections", whole.connections
            reached = DenyReason.CONNECTIONS
            yield self._tried(label, reached, lambda: self._connections(many, all_, reached))

    @property
    def _reach(self) -> int | None:
        """How many connections all sources may have together, by what each of them may have."""
        return len(self.sources) * self._each.connections if self._each.connections is not None else None

    def _tried(self, label: str, reason: DenyReason, trial: Callable[[], tuple[Status, str]]) -> Outcome:
        self.lab.load(self._firewall.id, self.lab.build / self._firewall.id / "nftables.nft")
        self.lab.flush_conntrack(self._firewall.id)
        try:
            status, observed = trial()
        except WireError as lost:
            status, observed = Status.ERROR, str(lost)
        return Outcome(
            stage=STAGE,
            source=self.sources[0].source.id,
            destination=self.sources[0].destination.id,
            probe=f"{self.flow.id}: {label}",
            family=self.sources[0].ends[2].version,
            firewall=self._firewall.id,
            expected=Expected(Verdict.DENY, self.flow.id, reason),
            status=status,
            observed=observed,
        )

    def _rate(self, sources: list[Permitted], rate: int, reason: DenyReason) -> tuple[Status, str]:
        most_each = self._each.connections if len(sources) == 1 else self._each.rate
        bounds = [self.flow.limits.connections, *([] if self._reach is None else [self._reach])]
        if most_each is not None:
            bounds.append(most_each * len(sources))
        tried = min([rate + max(_EXCESS, rate), *bounds])  # more than comes back while they are being sent
        before = self.lab.counters(self._firewall.id)
        begun = time.monotonic()
        passed = self._spread(sources, tried)
        most = rate + int((time.monotonic() - begun) * rate) + 1
        refused = self._rise(before, deny_counter(reason))
        observed = f"of {tried} at once {passed} passed and {refused} were refused for their rate"
        if not refused and most >= tried:
            return Status.ERROR, f"{observed}; this machine is too slow to exceed the limit"
        held = rate <= passed <= most and 0 < refused == tried - passed
        if not held or len(sources) > 1:
            return (Status.PASS if held else Status.DEVIATION), observed
        return self._neighbour(observed, passed, self.flow.limits.rate)

    def _connections(self, sources: list[Permitted], connections: int, reason: DenyReason) -> tuple[Status, str]:
        before = self.lab.counters(self._firewall.id)
        each = self._each.rate
        rate = self.flow.limits.rate if each is None else min(self.flow.limits.rate, len(sources) * each)
        step = min(connections, max(len(sources), rate // 2))
        passed, pause = 0, step / rate * 1.1
        with self._patient():
            while passed < connections:
                opened = self._spread(sources, min(step, connections - passed))
                if not opened:
                    return Status.DEVIATION, f"only {passed} of {connections} connections could be opened"
                passed += opened
                time.sleep(pause)
            # By the source whose turn it is: if all of them share the bound, it has room of its own.
            excess = min(_EXCESS, step)
            if len(sources) > 1 and self._reach is not None:
                excess = min(excess, self._reach - connections)
            further = self._spread(sources, excess)
        refused = self._rise(before, deny_counter(reason))
        observed = f"{passed} passed; of {excess} more {further} passed and {refused} were refused"
        if further or refused != excess or len(sources) > 1:
            return (Status.DEVIATION if further or refused != excess else Status.PASS), observed
        return self._neighbour(observed, passed, self.flow.limits.connections)

    @contextmanager
    def _patient(self) -> Iterator[None]:
        """Have the kernel hold handshakes for longer than it takes to begin as many as there may be, at their rate.

        What is asked is how many places there are, not when one is given back.
        """
        namespace = self.lab.namespace(self._firewall.id)
        before = namespace.call(lambda: [path.read_text(encoding="ascii") for path in _HANDSHAKES])
        namespace.call(lambda: [path.write_text(_HELD, encoding="ascii") for path in _HANDSHAKES])
        try:
            yield
        finally:
            namespace.call(
                lambda: [
                    path.write_text(text, encoding="ascii") for path, text in zip(_HANDSHAKES, before, strict=True)
                ]
            )

    def _neighbour(self, observed: str, passed: int, whole: int) -> tuple[Status, str]:
        """Let another source begin a connection, after one has had all it may have, if there is another."""
        if len(self.sources) < 2 or passed >= whole:
            return Status.PASS, observed
        came = self._open(self.sources[1], 1)
        other = self.sources[1].source.id
        said = f"{observed}; {'one' if came else 'none'} from {other} passed then"
        return (Status.PASS if came == 1 else Status.DEVIATION), said

    def _spread(self, sources: list[Permitted], count: int) -> int:
        """Begin so many connections, from each source as many as from the others; return how many came through."""
        parts: Counter[int] = Counter()
        for _ in range(count):
            parts[self._turn % len(sources)] += 1
            self._turn += 1
        return sum(self._open(sources[place], part) for place, part in sorted(parts.items()))

    def _rise(self, before: dict[str, int], counter: str) -> int:
        return self.lab.counters(self._firewall.id)[counter] - before[counter]

    def _open(self, permitted: Permitted, count: int) -> int:
        """Begin so many connections; return how many came through, or for the firewall itself, were counted."""
        ingress, egress, source, destination = permitted.ends
        shape = template(Shape.SYN, source.version)
        macs = macs_to(self._firewall, ingress)
        port = permitted.ports[0].first
        frames = []
        for _ in range(count):
            source_port = _FIRST_PORT + self._number % 40000
            frames.append(shape.frame(self._number, macs, source, destination, source_port=source_port, port=port))
            self._number += 1
        interface = next(each for each in self._firewall.interfaces if each.name == ingress)
        counter = flow_counter(permitted.flow.id)
        before = self.lab.counters(self._firewall.id)
        frames.append(question(interface, self.expectation.topology))
        seen = self.wire.exchange(ingress, frames, is_answer, _PATIENCE)
        if permitted.egress is None:
            return self._rise(before, counter)
        return sum(name == egress and number_of(frame) is not None for name, frame in seen.left)


def _comes_first(bound: int, *others: int | None) -> bool:
    """Tell whether a bound is exceeded before others are."""
    return all(other is None or bound + _EXCESS <= other for other in others)
