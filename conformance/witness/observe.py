"""What a firewall's kernel does with frames: which came out where, and which counters rose by how much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from conformance.lab import Lab
from conformance.probe.batch import accepts
from conformance.probe.neighbour import is_answer, is_discovery, question
from conformance.probe.shape import ANSWER_SEQUENCE, SEQUENCE, number_of
from conformance.probe.wire import Seen, Wire, macs_to
from conformance.witness.forecast import FORWARDED, RELAYED, Forecast
from conformance.witness.frame import Content, frame_of, segment
from conformance.witness.plan import Connection, Trial
from netpolicy.proof import fields
from netpolicy.proof.evaluate import Packet
from netpolicy.topology.model import Firewall

_PATIENCE = 2.0
_HANDSHAKE = 0xFFFFFF00
"""Numbers from here on are of frames that open and end connections."""
_TABLES = ("netpolicy", "netpolicy_guard")


@dataclass(frozen=True, slots=True)
class Observed:
    """What came of frames that should all have had the same fate."""

    complaint: str | None
    """None if it was what the model says."""
    frames: tuple[tuple[str, bytes], ...] = ()
    """That came out, with the interface."""


@dataclass(slots=True)
class Observer:
    """Sends the frames of trials to one firewall, and compares."""

    lab: Lab
    firewall: Firewall
    wire: Wire
    _spent: Counter[object] = field(default_factory=Counter)
    """By rule with a limit: how much of it is used since the ruleset was loaded."""
    _macs: dict[str, bytes] = field(default_factory=dict)
    _questions: dict[str, bytes] = field(default_factory=dict)

    def renew(self) -> None:
        """Load the firewall's ruleset again and forget its connections, so that no limit remembers anything."""
        self.lab.renew(self.firewall.id)
        self._spent.clear()

    def spend(self, forecasts: Sequence[Forecast]) -> None:
        """Make sure that no limit is exceeded by what is sent next."""
        needed: Counter[object] = Counter()
        bounds: dict[object, int] = {}
        for forecast in forecasts:
            for rule, bound in forecast.spends:
                key = str(rule)
                needed[key] += 1
                bounds[key] = min(bound, bounds.get(key, bound))
        if any(self._spent[key] + count > bounds[key] for key, count in needed.items()):
            self.renew()
        self._spent.update(needed)

    def ask(self, trials: Sequence[Trial], answer: int = ANSWER_SEQUENCE) -> Observed:
        """Send frames that come in by one interface and have the same fate, and compare.

        Args:
            trials: Of one :attr:`Forecast.key` and interface.
            answer: With which sequence number the other end of their connection has begun.

        Raises:
            WireError: A socket lost frames.

        """
        first = trials[0]
        self.spend([each.forecast for each in trials])
        before = self._counters()
        frames = [each.frame(self._macs_at(first.ingress), answer) for each in trials]
        seen = self._exchange(first.ingress, frames)
        after = self._counters()
        rises = Counter({name: after[name] - count for name, count in before.items() if after.get(name) != count})
        found = _compared(trials, seen, rises)
        if first.forecast.end == RELAYED and first.connection is None:
            self._exchange(first.ingress, [self._reset(each.packet, each.number) for each in trials])
        return found

    @contextmanager
    def connected(self, connection: Connection) -> Iterator[int | None]:
        """Open a connection, yield the sequence number of its other end (None: it did not open), and end it."""
        self.spend([connection.forecast])
        opening, ingress = connection.opening, connection.ingress
        seen = self._exchange(ingress, [self._segment(opening, ingress, Content(_HANDSHAKE))])
        answer: int | None = None
        if connection.relayed:
            port = opening.number(fields.SPORT)
            answer = next((_sequence(each) for name, each in seen.left if accepts(each, port)), None)
        elif any(number_of(each) == _HANDSHAKE and name == connection.forecast.egress for name, each in seen.left):
            egress = connection.forecast.egress or ""
            back = connection.back().changed({fields.TCP_FLAGS: fields.SYN | fields.ACK})
            content = Content(_HANDSHAKE + 1, ANSWER_SEQUENCE, SEQUENCE + 1)
            seen = self._exchange(egress, [self._segment(back, egress, content)])
            passed = any(number_of(each) == _HANDSHAKE + 1 and name == ingress for name, each in seen.left)
            answer = ANSWER_SEQUENCE if passed else None
        if answer is not None:
            last = segment(opening.changed({fields.TCP_FLAGS: fields.ACK}), data=True)
            content = Content(_HANDSHAKE + 2, SEQUENCE + 1 - 8, answer + 1)
            seen = self._exchange(ingress, [self._segment(last, ingress, content)])
            if connection.relayed and not any(name == ingress and _is_own(each) for name, each in seen.left):
                answer = (
                    None  # what it holds already it acknowledges again (RFC 9293, 3.10.7.4), if that has come to it
                )
        try:
            yield answer
        finally:
            self._exchange(ingress, [self._reset(opening, _HANDSHAKE + 3)])
            self.lab.flush_conntrack(self.firewall.id)

    def _segment(self, packet: Packet, interface: str, content: Content) -> bytes:
        return frame_of(packet, self._macs_at(interface), content)

    def _reset(self, packet: Packet, number: int) -> bytes:
        reset = segment(packet.changed({fields.TCP_FLAGS: fields.RST}), data=False)
        return self._segment(reset, str(packet[fields.IIF]), Content(number, SEQUENCE + 1))

    def _exchange(self, interface: str, frames: list[bytes]) -> Seen:
        """Send frames, and then a question that the firewall answers itself when it has dealt with them."""
        if interface not in self._questions:
            found = next(each for each in self.firewall.interfaces if each.name == interface)
            self._questions[interface] = question(found, self.lab.topology)
        return self.wire.exchange(interface, [*frames, self._questions[interface]], is_answer, _PATIENCE)

    def _counters(self) -> dict[str, int]:
        return {name: n for table in _TABLES for name, n in self.lab.counters(self.firewall.id, table).items()}

    def _macs_at(self, interface: str) -> bytes:
        if interface not in self._macs:
            self._macs[interface] = macs_to(self.firewall, interface)
        return self._macs[interface]


def _compared(trials: Sequence[Trial], seen: Seen, rises: Counter[str]) -> Observed:
    """Return what is other than the model says."""
    first = trials[0]
    out: dict[int, list[str]] = {}
    own: list[tuple[str, bytes]] = []
    for interface, frame in seen.left:
        number = number_of(frame)
        if number is not None:
            out.setdefault(number, []).append(interface)
        elif _is_own(frame):
            own.append((interface, frame))
    wanted = Counter({name: count * len(trials) for name, count in first.forecast.counters})
    complaint = None
    if any(each.number not in seen.arrived for each in trials):
        complaint = "it did not arrive at the firewall"
    elif rises != wanted:
        complaint = f"what rose: {_said(rises)}"
    elif first.forecast.end == FORWARDED:
        complaint = _wrong_way(trials, out)
    elif out:
        complaint = f"it came out of {', '.join(sorted({each for ways in out.values() for each in ways}))}"
    if complaint is None:
        complaint = _wrong_answers(trials, own)
    return Observed(complaint, tuple(seen.left[:4]) if complaint else ())


def _wrong_way(trials: Sequence[Trial], out: dict[int, list[str]]) -> str | None:
    for each in trials:
        ways = out.get(each.number, [])
        if ways != [each.forecast.egress]:
            return f"it came out of {', '.join(ways)}" if ways else "it did not come out"
    return None


def _wrong_answers(trials: Sequence[Trial], own: Sequence[tuple[str, bytes]]) -> str | None:
    """Return what is wrong with what the firewall itself has said."""
    first = trials[0]
    if first.connection is not None and first.connection.relayed:
        return None  # its relay may say something at any time
    if first.forecast.end == RELAYED:
        for each in trials:
            port = each.packet.number(fields.SPORT)
            if not any(name == each.ingress and accepts(frame, port) for name, frame in own):
                return "the relay did not take it"
        return None
    return f"the firewall answered by {own[0][0]} itself" if own else None


def _is_own(frame: bytes) -> bool:
    return number_of(frame) is None and not is_discovery(frame)


def _said(rises: Counter[str]) -> str:
    return ", ".join(f"{name} by {count}" for name, count in sorted(rises.items())) or "nothing"


def _sequence(frame: bytes) -> int:
    """Return the sequence number of a TCP segment without options before it."""
    begin = 14 + (20 if frame[12:14] == b"\x08\0" else 40)
    return int.from_bytes(frame[begin + 4 : begin + 8], "big")
