"""Probes against one firewall, in batches that share a verdict, each judged with four proofs.

Sent and arrived: the capture inside the firewall saw it.  The way was open: a sentinel came through before and after.
It did not come out: captures on all wires, none of which lost a frame.  The firewall says why: the counter of the
expected reason rose by exactly these probes, and no other counter of the ruleset did.

Into a firewall that is elsewhere nobody can look: there the fourth proof is missing, and the first is the count of what
its network card has taken.  Few frames are then on their way at once, so that none can be lost where nobody counts.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from conformance.expect import Judge, Packet, Permitted
from conformance.lab import Lab
from conformance.outcome import Expected, Outcome, Status, Verdict
from conformance.probe.neighbour import is_answer, is_discovery, question
from conformance.probe.shape import Shape, number_of, oddity, template, transport
from conformance.probe.wire import Seen, Wire, WireError, macs_to
from conformance.results import Results
from netpolicy.reasons import DenyReason, flow_counter
from netpolicy.topology.ends import SourceLimits, source_limits
from netpolicy.topology.model import Address, Assurance, Firewall, Limits, Topology

_PATIENCE = 5.0
"""Seconds after which a sentinel is lost: the machine may be busy, and a firewall that is elsewhere be emulated."""
_ELSEWHERE_AT_ONCE = 48
"""Frames between two answers of a firewall that is elsewhere."""
_REFILL = 1.25
"""Seconds after which every rate is full again: they are per second."""
_FIRST_SENTINEL = 0xF0000000
_EVIDENCE = 4
_MOST = 4000
"""Connections that are begun at once where nothing limits them."""
"""Frames kept of a deviation."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One question to one firewall."""

    stage: str
    source: str
    """Who it pretends to come from: a node or firewall id, or ``segment:<id>``."""
    destination: str
    label: str
    shape: Shape
    ingress: str
    source_address: Address
    destination_address: Address
    port: int
    about: str | None = None
    """The flow it is meant to test."""
    misrouted: bool = False
    """The firewall's routes have been changed so that it goes astray."""

    @property
    def key(self) -> tuple[Shape, str, Address, Address, int]:
        """What makes two probes the same packet."""
        return self.shape, self.ingress, self.source_address, self.destination_address, self.port


@dataclass(frozen=True, slots=True)
class _Asked:
    """A probe with its frame and what must come of it."""

    number: int
    probe: Probe
    frame: bytes
    expected: Expected
    egress: str | None


@dataclass(slots=True)
class FirewallProber:
    """Sends probes to one firewall of an isolated lab, and judges what becomes of them."""

    lab: Lab
    topology: Topology
    judge: Judge
    wire: Wire
    results: Results
    permits: Sequence[Permitted]
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(1, _FIRST_SENTINEL)))
    _sentinels: Iterator[int] = field(default_factory=lambda: iter(range(_FIRST_SENTINEL, 1 << 32)))
    _macs: dict[str, bytes] = field(default_factory=dict)
    _used: Counter[tuple[str, Address]] = field(default_factory=Counter)
    """Connections opened of each flow from each source since the ruleset was loaded last."""
    _questions: dict[str, bytes] = field(default_factory=dict)
    _lost: set[str] = field(default_factory=set)
    """Flows whose sentinel was lost."""
    _chosen: dict[str | None, Permitted | None] = field(default_factory=dict)

    @property
    def firewall(self) -> Firewall:
        """The firewall under test."""
        return self.judge.firewall

    def run(self, probes: Iterable[Probe]) -> int:
        """Ask every different question once, in batches of one verdict; return how many there were."""
        groups: dict[tuple[str, str, str | None, str | None], list[_Asked]] = {}
        seen: set[tuple[Shape, str, Address, Address, int]] = set()
        for probe in probes:
            if probe.key in seen:
                continue
            seen.add(probe.key)
            asked = self._ask(probe)
            key = (probe.ingress, asked.expected.counter or "", asked.expected.flow, asked.egress)
            groups.setdefault(key, []).append(asked)
        for group in groups.values():
            permitted = group[0].expected.verdict is Verdict.PERMIT
            for batch in self._affordable(group) if permitted else (group,):
                self._judge_batch(batch)
        return len(seen)

    def _affordable(self, group: list[_Asked]) -> Iterator[list[_Asked]]:
        """Yield parts of permitted connections of one flow that may begin at once, beside a sentinel's two."""
        flow = group[0].expected.flow
        whole, each = self._budget(flow) - 2, self._budget(flow, apart=True) - 2
        batch: list[_Asked] = []
        sources: Counter[Address] = Counter()
        for asked in group:
            source = asked.probe.source_address
            if batch and (len(batch) >= whole or sources[source] >= max(1, each)):
                yield batch
                batch, sources = [], Counter()
            batch.append(asked)
            sources[source] += 1
        yield batch

    def _ask(self, probe: Probe) -> _Asked:
        family = probe.source_address.version
        packet = Packet(
            probe.ingress,
            probe.source_address,
            probe.destination_address,
            transport(probe.shape),
            probe.port,
            DenyReason.SPOOFED_DESTINATION if probe.misrouted else oddity(probe.shape, family),
        )
        expected, egress = self.judge.judge(packet, probe.about)
        number = next(self._numbers)
        return _Asked(number, probe, self._frame(number, probe), expected, egress)

    def _frame(self, number: int, probe: Probe) -> bytes:
        return template(probe.shape, probe.source_address.version).frame(
            number,
            self._macs_at(probe.ingress),
            probe.source_address,
            probe.destination_address,
            source_port=_source_port(number),
            port=probe.port,
        )

    def _macs_at(self, ingress: str) -> bytes:
        if ingress not in self._macs:
            self._macs[ingress] = macs_to(self.firewall, ingress)
        return self._macs[ingress]

    def _budget(self, flow: str | None, *, apart: bool = False) -> int:
        """Return how many connections of a flow a freshly loaded ruleset lets begin at once: all, or one source's."""
        if flow is None:
            return _MOST
        found = self.topology.flows[flow]
        limits: Limits | SourceLimits = source_limits(self.topology, found) if apart else found.limits
        return min([_MOST, *(bound for bound in (limits.rate, limits.connections) if bound)])

    def _spend(self, connections: Counter[tuple[str, Address]]) -> None:
        """Make sure that so many connections of flows and sources may begin; a new ruleset forgets the ones before."""
        whole: Counter[str] = Counter()
        for (flow, _), count in (self._used + connections).items():
            whole[flow] += count
        if any(count > self._budget(flow) for flow, count in whole.items()) or any(
            self._used[flow, source] + count > self._budget(flow, apart=True)
            for (flow, source), count in connections.items()
        ):
            self.renew()
        self._used += connections

    def renew(self) -> None:
        """Load the firewall's ruleset again and forget its connections, so that no limit remembers anything.

        One that is elsewhere is given time instead; its connections have been reset.
        """
        if self._elsewhere:
            time.sleep(_REFILL)
        else:
            self.lab.renew(self.firewall.id)
        self._used.clear()

    @property
    def _elsewhere(self) -> bool:
        return self.firewall.id in self.lab.elsewhere

    def _counters(self) -> dict[str, int]:
        """Return the firewall's counters; none if it is elsewhere."""
        return {} if self._elsewhere else self.lab.counters(self.firewall.id)

    def _judge_batch(self, batch: list[_Asked]) -> None:
        first = batch[0]
        permitted = first.expected.verdict is Verdict.PERMIT
        # Where routes have been changed a sentinel could go astray too: the firewall's own answer has to do.
        sentinel = None if first.probe.misrouted else self._sentinel_permit(first.expected.flow if permitted else None)
        spent: Counter[tuple[str, Address]] = Counter()
        if sentinel:
            spent[sentinel.flow.id, sentinel.ends[2]] = 2
        if permitted and first.expected.flow is not None:
            spent.update((first.expected.flow, asked.probe.source_address) for asked in batch)
        self._spend(spent)
        before = self._counters()
        problem = self._watch(sentinel, first.probe.ingress)
        seen = Seen()
        if problem is None:
            try:
                seen = self._send(batch)
            except WireError as lost:
                problem = str(lost)
        if problem is None:
            problem = self._watch(sentinel, first.probe.ingress)
        after = self._counters()
        if problem is not None:
            for asked in batch:
                self._report(asked, Status.ERROR, problem)
            return
        rises = {name: after[name] - count for name, count in before.items() if after.get(name, 0) != count}
        if sentinel is not None and before:
            _subtract(rises, flow_counter(sentinel.flow.id), 2)
        self._conclude(batch, seen, rises)

    def _send(self, batch: list[_Asked]) -> Seen:
        """Send a batch; a question that the firewall answers last, to show that all before have been dealt with."""
        first = batch[0]
        permitted = first.expected.verdict is Verdict.PERMIT
        seen = self._send_all(first.probe.ingress, [asked.frame for asked in batch])
        if permitted and first.egress is not None:
            back = self._send_all(first.egress, [self._answer(asked) for asked in batch])
            seen.arrived |= back.arrived
            seen.left.extend(back.left)
        if permitted and (first.egress is None or self._elsewhere):
            self._send_all(first.probe.ingress, [self._reset(asked.probe, asked.number) for asked in batch])
        return seen

    def _send_all(self, interface: str, frames: list[bytes]) -> Seen:
        """Send frames, and after them, or after every few, a question that the firewall answers."""
        step = _ELSEWHERE_AT_ONCE if self._elsewhere else len(frames)
        seen = Seen()
        for begin in range(0, len(frames), step):
            part = [*frames[begin : begin + step], self._question(interface)]
            found = self.wire.exchange(interface, part, is_answer, _PATIENCE)
            if self._elsewhere and not any(is_answer(frame) for _, frame in found.left):
                raise WireError(f"the firewall did not answer on {interface} after {begin + step} frames")
            seen.arrived |= found.arrived
            seen.left.extend(found.left)
        return seen

    def _reset(self, probe: Probe, number: int) -> bytes:
        """Return what ends a connection that the firewall itself has answered, before it answers again."""
        return self._frame(number, replace(probe, shape=Shape.RST))

    def _answer(self, asked: _Asked) -> bytes:
        probe = asked.probe
        return template(Shape.SYN_ACK, probe.source_address.version).frame(
            asked.number,
            self._macs_at(asked.egress or ""),
            probe.destination_address,
            probe.source_address,
            source_port=probe.port,
            port=_source_port(asked.number),
        )

    def _question(self, interface: str) -> bytes:
        if interface not in self._questions:
            found = next(each for each in self.firewall.interfaces if each.name == interface)
            self._questions[interface] = question(found, self.topology)
        return self._questions[interface]

    def _sentinel_permit(self, avoid: str | None) -> Permitted | None:
        """Return the permit that shows the way open: one that is open now, the one with the widest limits."""
        if avoid in self._chosen:
            return self._chosen[avoid]
        open_ = [
            each
            for each in self.permits
            if (each.relayed or each.egress is not None)
            and each.flow.id != avoid
            and each.flow.id not in self._lost
            and self._budget(each.flow.id, apart=True) >= 5
            and self.judge.expectation.closed(each.flow) is None
        ]
        self._chosen[avoid] = max(open_, key=lambda each: self._budget(each.flow.id, apart=True), default=None)
        return self._chosen[avoid]

    def _watch(self, sentinel: Permitted | None, ingress: str) -> str | None:
        """Send a sentinel; return what is wrong if it is lost."""
        try:
            if sentinel is None:
                seen = self.wire.exchange(ingress, [self._question(ingress)], is_answer, _PATIENCE)
                lost = not any(is_answer(frame) for _, frame in seen.left)
                return "no sentinel came back: the firewall does not answer on this interface" if lost else None
            answered = self._pass_sentinel(sentinel)
        except WireError as failed:
            return str(failed)
        if not answered:
            self._lost.add(sentinel.flow.id)  # what follows is watched by another one
            self._chosen.clear()
            return f"the sentinel, a permitted connection of flow {sentinel.flow.id}, was lost"
        return None

    def _pass_sentinel(self, sentinel: Permitted) -> bool:
        """Begin a permitted connection; tell whether it came out where it must, or the relay took it."""
        number = next(self._sentinels)
        way_in, _, source, destination = sentinel.ends
        port, source_port = sentinel.ports[0].first, _source_port(number)
        opening, reset = (
            template(shape, source.version).frame(
                number, self._macs_at(way_in), source, destination, source_port=source_port, port=port
            )
            for shape in (Shape.SYN, Shape.RST)
        )
        if sentinel.egress is not None:
            seen = self.wire.exchange(way_in, [opening], lambda each: number_of(each) == number, _PATIENCE)
            if self._elsewhere:
                self._send_all(way_in, [reset])
            return any(name == sentinel.egress and number_of(frame) == number for name, frame in seen.left)
        seen = self.wire.exchange(way_in, [opening], lambda each: accepts(each, source_port), _PATIENCE)
        self.wire.exchange(way_in, [reset, self._question(way_in)], is_answer, _PATIENCE)
        return any(name == way_in and accepts(frame, source_port) for name, frame in seen.left)

    def _conclude(self, batch: list[_Asked], seen: Seen, rises: dict[str, int]) -> None:
        out: dict[int, list[tuple[str, bytes]]] = {}
        strange: list[tuple[str, bytes]] = []
        for interface, frame in seen.left:
            number = number_of(frame)
            if number is not None:
                out.setdefault(number, []).append((interface, frame))
            elif not is_discovery(frame):
                strange.append((interface, frame))
        permitted = batch[0].expected.verdict is Verdict.PERMIT
        leaked = 0 if permitted else sum(asked.number in out for asked in batch)
        complaint = None if self._elsewhere else _complaint(batch, leaked, rises)
        if strange and not (permitted and batch[0].egress is None):
            complaint = f"the firewall answered by {strange[0][0]} itself"
        for asked in batch:
            passed = out.get(asked.number, [])
            if asked.number not in seen.arrived:
                self._report(asked, Status.ERROR, "the probe did not arrive at the firewall")
            elif permitted:
                self._conclude_permit(asked, passed, strange, complaint)
            elif passed:
                by = ", ".join(sorted({interface for interface, _ in passed}))
                self._report(asked, Status.DEVIATION, f"it passed, out of {by}", passed)
            elif complaint:
                self._report(asked, Status.DEVIATION, f"it was dropped for another reason: {complaint}", strange)
            else:
                self._pass(asked)

    def _conclude_permit(
        self,
        asked: _Asked,
        passed: list[tuple[str, bytes]],
        strange: list[tuple[str, bytes]],
        complaint: str | None,
    ) -> None:
        if asked.egress is None:
            port = _source_port(asked.number)
            # The relay must take it; an endpoint of the firewall need not run here, and then the kernel says so.
            taken = accepts if self._relayed(asked.expected.flow) else answers
            answered = any(taken(frame, port) for _, frame in strange)
            if complaint or not answered:
                missing = "neither the firewall's relay nor an endpoint of it took it"
                self._report(asked, Status.DEVIATION, complaint or missing, strange)
            else:
                self._pass(asked)
            return
        ways = [interface for interface, _ in passed]
        if ways == [asked.egress, asked.probe.ingress] and not complaint:
            self._pass(asked)
        elif not ways:
            self._report(asked, Status.DEVIATION, complaint or "it did not come out")
        elif ways == [asked.egress]:
            self._report(asked, Status.DEVIATION, complaint or "it passed, but its answer did not", passed)
        else:
            self._report(asked, Status.DEVIATION, complaint or f"it came out of {', '.join(ways)}", passed)

    def _relayed(self, flow: str | None) -> bool:
        return flow is not None and self.topology.flows[flow].assurance is Assurance.TERMINATE

    def _pass(self, asked: _Asked) -> None:
        probe = asked.probe
        self.results.add_pass(
            probe.stage, self.firewall.id, (probe.source, probe.destination), probe.label, asked.expected
        )

    def _report(self, asked: _Asked, status: Status, observed: str, evidence: Sequence[tuple[str, bytes]] = ()) -> None:
        probe = asked.probe
        self.results.add(
            Outcome(
                stage=probe.stage,
                source=probe.source,
                destination=probe.destination,
                probe=probe.label,
                family=probe.source_address.version,
                firewall=self.firewall.id,
                expected=asked.expected,
                status=status,
                observed=observed,
                frames=(asked.frame, *(frame for _, frame in evidence[:_EVIDENCE])),
            )
        )


def _complaint(batch: list[_Asked], leaked: int, rises: dict[str, int]) -> str | None:
    """Return what is wrong with how the counters rose; what leaked may have been counted anywhere."""
    counter = batch[0].expected.counter or ""
    wanted = len(batch) - leaked
    elsewhere = sum(count for name, count in rises.items() if name != counter)
    if rises.get(counter, 0) == wanted and elsewhere <= leaked:
        return None
    return f"{counter} should have risen by {wanted}; what rose: {_risen(rises)}"


def _subtract(rises: dict[str, int], counter: str, count: int) -> None:
    left = rises.get(counter, 0) - count
    if left:
        rises[counter] = left
    else:
        rises.pop(counter, None)


def _risen(rises: dict[str, int]) -> str:
    return ", ".join(f"{name} by {count}" for name, count in sorted(rises.items())) or "nothing"


def _source_port(number: int) -> int:
    return 20000 + number % 45000


def answers(frame: bytes, port: int) -> bool:
    """Tell whether a frame is a TCP segment to `port`."""
    header = _header(frame)
    return len(frame) >= header + 20 and int.from_bytes(frame[header + 2 : header + 4], "big") == port


def accepts(frame: bytes, port: int) -> bool:
    """Tell whether a frame takes a TCP connection (SYN-ACK) that was begun from `port`."""
    return answers(frame, port) and frame[_header(frame) + 13] & _FLAGS == _SYN_ACK


def _header(frame: bytes) -> int:
    return _ETHERNET + (20 if frame[12:14] == b"\x08\0" else 40)


_ETHERNET = 14
_FLAGS, _SYN_ACK = 0x3F, 0x12
