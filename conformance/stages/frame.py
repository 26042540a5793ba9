"""Frames of every shape around a packet that is permitted: what an interface takes from its wire at all.

Each shape goes to every interface in each family: around a SYN that would pass, around a SYN-ACK that would where
answers come, and where neither comes, around a SYN to the firewall itself. It is known again by its number wherever it
comes out. In a lab without engines the kernel's own door has to hold: it counts what it refuses. In one with engines
nothing that is not plain IP may even reach the kernel behind one.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from conformance.expect import Expectation, Permitted
from conformance.frames.shapes import IPV4, IPV6, Around, Shape, plain, shapes
from conformance.lab import Lab, LabError
from conformance.lab.scope import Scope
from conformance.outcome import Expected, Outcome, Status, Verdict
from conformance.probe import shape as probes
from conformance.probe.batch import accepts
from conformance.probe.neighbour import asker, is_answer, question
from conformance.probe.wire import check_losses, macs_to, packet_socket, received, send
from conformance.results import Results
from netpolicy.reasons import FRAME_COUNTER
from netpolicy.topology.ends import source_limits
from netpolicy.topology.model import Address, Firewall, Topology

STAGE = "frame"

FRAME_TABLE = "netpolicy_frames"
MARK = b"GET /behind-the-frame HTTP/1.1\r\n"
"""Stands behind some packets; none of its bytes comes out."""
_PATIENCE, _SETTLE = 5.0, 0.03
_MINIMUM = 8
"""Connections that a flow must let one source begin at once: sentinels, and packets that pass in a longer frame."""
_ETHERNET = 14
_NOBODYS_PORT = 80
_FIRST_PORT, _PORTS = 20000, 40000


@dataclass(frozen=True, slots=True)
class Side:
    """One interface of a firewall in one family, and what may come by it."""

    interface: str
    source: Address
    destination: Address
    port: int
    flow: str | None = None
    """What permits it; None if nothing permitted comes by the interface: then the packet would be refused as well."""
    answers_to: str | None = None
    """If only answers come: the interface by which what they answer has come."""
    egress: str | None = None
    """By which the packet leaves; None if the firewall's relay takes it."""

    @property
    def answers(self) -> bool:
        """Whether what comes is an answer."""
        return self.answers_to is not None

    @property
    def family(self) -> int:
        """4 or 6."""
        return self.source.version


@dataclass(slots=True)
class _Sent:
    """One frame, and what came of it."""

    label: str
    number: int
    port: int
    frame: bytes
    plainly: bytes
    arrived: bool = False
    inside: bool = False
    """Whether the kernel behind an engine was given it."""
    out: list[tuple[str, bytes]] = field(default_factory=list)


def run_frame_stage(
    lab: Lab, scope: Scope, expectation: Expectation, firewalls: Sequence[str], results: Results
) -> int:
    """Try every shape at every interface of firewalls of an isolated lab; return how many were tried.

    Args:
        lab: With or without engines.
        scope: Admits the frames.
        expectation: Says what is permitted where.
        firewalls: Their ids.
        results: Take the outcomes.

    Raises:
        LabError: The lab does not answer.
        ScopeError: The frames must not be sent.

    """
    count = 0
    for firewall in firewalls:
        known = expectation.topology.firewalls[firewall]
        with ExitStack() as stack:
            lab.renew(firewall)
            stand = _Stand(lab, scope, expectation, known, results)
            stand.open(stack)
            for side in sides(expectation, known):
                count += stand.try_side(side)
        lab.renew(firewall)
    return count


def sides(expectation: Expectation, firewall: Firewall) -> Iterator[Side]:
    """Yield each interface and family with what passes there: connections, or answers to those of another one."""
    for interface in firewall.interfaces:
        for family in sorted({address.version for address in interface.addresses}):
            usable = [
                each
                for each in expectation.permits[firewall.id]
                if each.ends[2].version == family
                and expectation.closed(each.flow) is None
                and _budget(expectation.topology, each) >= _MINIMUM
                and (each.relayed or each.egress is not None)
            ]
            coming = [each for each in usable if each.ends[0] == interface.name]
            answered = [each for each in usable if each.egress == interface.name]
            for found, answers in ((coming, False), (answered, True)):
                if found:
                    best = max(found, key=lambda each: (not each.relayed, _budget(expectation.topology, each)))
                    way_in, _, source, destination = best.ends
                    ends = (source, destination, best.ports[0].first, best.flow.id)
                    ways = (way_in, way_in) if answers else (None, best.egress)
                    yield Side(interface.name, *ends, *ways)
            if not coming and not answered:
                own = next(each for each in interface.addresses if each.version == family)
                yield Side(interface.name, asker(interface, own, expectation.topology), own, _NOBODYS_PORT)


def _budget(topology: Topology, permitted: Permitted) -> int:
    limits = source_limits(topology, permitted.flow)
    found = [bound for each in (limits, permitted.flow.limits) for bound in (each.rate, each.connections) if bound]
    return min(found, default=1 << 16)


class _Stand:
    """Sockets around one firewall, and what is sent through them."""

    def __init__(self, lab: Lab, scope: Scope, expectation: Expectation, firewall: Firewall, results: Results) -> None:
        self._lab, self._scope, self._firewall = lab, scope, firewall
        self._topology = expectation.topology
        self._results = results
        self._outside: dict[str, socket.socket] = {}
        self._ingress: dict[str, socket.socket] = {}
        self._behind: dict[str, socket.socket] = {}
        self._used: set[str | None] = set()

    def open(self, stack: ExitStack) -> None:
        """Open the sockets, until the stack closes them."""
        lab, firewall = self._lab, self._firewall
        for interface in firewall.interfaces:
            name = interface.name
            port = lab.wire_port(firewall.id, name)
            self._outside[name] = stack.enter_context(lab.wire.call(packet_socket(port)))
            inside = stack.enter_context(lab.namespace(firewall.id).call(packet_socket(name)))
            engine = lab.engines.get((firewall.id, name))
            if engine is None:
                self._ingress[name] = inside
            else:
                self._behind[name] = inside
                self._ingress[name] = stack.enter_context(engine.namespace.call(packet_socket(name)))

    def try_side(self, side: Side) -> int:
        """Send every shape to one side, between two packets that pass; tell the results."""
        flow = side.flow
        if flow in self._used:  # limits have not forgotten
            self._lab.renew(self._firewall.id)
            self._used.clear()
        self._used.add(flow)
        tried = [self._around(side, number, label, shape) for number, (label, shape) in enumerate(shapes(), 2)]
        first, last = (self._around(side, number, "plain", plain) for number in (1, len(tried) + 2))
        if side.answers:
            self._open(side, [first, *tried, last])
        problem = self._pass(side, first)
        before = self._refused()
        if problem is None:
            problem = self._send(side, tried)
        rise = self._refused() - before
        if problem is None:
            problem = self._pass(side, last)
        for each in tried:
            self._conclude(side, each, problem)
        if problem is None and side.interface not in self._behind:
            self._count(side, tried, rise)
        return len(tried)

    def _around(self, side: Side, number: int, label: str, shape: Shape) -> _Sent:
        """Return a frame around a packet of its own connection."""
        port = _FIRST_PORT + number % _PORTS
        kind = probes.Shape.SYN_ACK if side.answers else probes.Shape.SYN
        ends, ports = (side.source, side.destination), (port, side.port)
        if side.answers:
            ends, ports = ends[::-1], ports[::-1]
        macs = macs_to(self._firewall, side.interface)
        framed = probes.template(kind, side.family).frame(number, macs, *ends, source_port=ports[0], port=ports[1])
        around = Around(macs[:6], macs[6:], framed[_ETHERNET:], MARK)
        return _Sent(label, number, port, shape(around), plain(around))

    def _open(self, side: Side, tried: Sequence[_Sent]) -> None:
        """Begin the connections that answers belong to: one for each that may pass, and the others as one."""
        way_in = side.answers_to or side.interface
        macs = macs_to(self._firewall, way_in)
        opening = [
            probes.template(probes.Shape.SYN, side.family).frame(
                each.number, macs, side.source, side.destination, source_port=each.port, port=side.port
            )
            for each in tried
            if each.label == "plain" or self._passes(side, each)
        ]
        self._exchange(way_in, opening, opening)

    def _pass(self, side: Side, each: _Sent) -> str | None:
        """Send a packet in a plain frame; return what is wrong if it does not pass."""
        if side.flow is None:  # that the firewall answers has to do
            return self._send(side, [])
        problem = self._send(side, [each])
        if problem is not None:
            return problem
        if not each.arrived or not self._came_out(side, each):
            return f"the way is not open: a plain frame of flow {side.flow} did not pass"
        return None

    def _send(self, side: Side, tried: Sequence[_Sent]) -> str | None:
        """Send frames, and note where each was seen; return what is wrong if not all have been dealt with."""
        frames = [each.frame for each in tried]
        seen = self._exchange(side.interface, frames, [each.plainly for each in tried])
        if seen is None:
            return "the firewall does not answer on this interface"
        arrived, inside, left = seen
        by_port = {each.port: each for each in tried}
        by_number = {each.number: each for each in tried}
        for each in tried:
            each.arrived = _known(each.frame) in arrived
            each.inside = _known(each.frame) in inside
        for interface, frame in left:
            found = by_number.get(probes.number_of(frame) or 0)
            if found is None and not side.answers:
                found = next((by_port[port] for port in by_port if accepts(frame, port)), None)
            if found is not None:
                found.out.append((interface, frame))
            elif MARK[:12] in frame:
                for each in tried:
                    each.out.append((interface, frame))
        return None

    def _exchange(
        self, interface: str, frames: Sequence[bytes], plainly: Sequence[bytes]
    ) -> tuple[set[bytes], set[bytes], list[tuple[str, bytes]]] | None:
        """Return what was seen before and behind an engine, and what came out; None without an answer at the end."""
        known = next(each for each in self._firewall.interfaces if each.name == interface)
        asked = question(known, self._topology)
        self._scope.admit_frames(self._lab.wire, [*plainly, asked])
        sockets = [*self._outside.values(), *self._ingress.values(), *self._behind.values()]
        for each in sockets:
            list(received(each))
        for frame in frames:
            send(self._outside[interface], frame)
        send(self._outside[interface], asked)
        arrived: set[bytes] = set()
        inside: set[bytes] = set()
        left: list[tuple[str, bytes]] = []
        answered, end = False, time.monotonic() + _PATIENCE
        settle = _SETTLE if self._behind else 0.0  # without an engine frames are dealt with in turn
        while time.monotonic() < end:
            ready, _, _ = select.select(sockets, [], [], settle if answered else 0.02)
            if answered and not ready:
                break
            arrived.update(map(_known, received(self._ingress[interface])))
            if interface in self._behind:
                inside.update(map(_known, received(self._behind[interface])))
            for name, outside in self._outside.items():
                left.extend((name, frame) for frame in received(outside))
            for each in (*self._ingress.values(), *self._behind.values()):
                if each not in (self._ingress[interface], self._behind.get(interface)):
                    list(received(each))
            answered = answered or any(is_answer(frame) for name, frame in left if name == interface)
        check_losses(sockets)
        return (arrived, inside, left) if answered else None

    def _refused(self) -> int:
        """Return what the frame table has counted; 0 where there is none, which then does not rise."""
        try:
            return self._lab.counters(self._firewall.id, FRAME_TABLE).get(FRAME_COUNTER, 0)
        except LabError:
            return 0

    def _door(self, side: Side, frame: bytes) -> bool:
        """Tell whether a frame is refused for what it is, by the topology: the packet in it is not looked at.

        What is taken is IP of the interface's families to its own MAC address, and IPv6 to a group's (RFC 2464, 7).
        """
        known = next(each for each in self._firewall.interfaces if each.name == side.interface)
        families = {address.version for address in known.addresses}
        own = bytes.fromhex(known.mac.replace(":", ""))
        kind, to = int.from_bytes(frame[12:14], "big"), frame[:6]
        if kind == IPV4 and 4 in families:
            return to != own
        if kind == IPV6 and 6 in families:
            return to != own and (to == b"\xff" * 6 or not to[0] & 1)
        return True

    def _passes(self, side: Side, each: _Sent) -> bool:
        """Tell whether a frame holds its packet as it is, with other bytes behind it: that packet passes."""
        there = side.flow is not None and each.frame.startswith(each.plainly)
        return there and not self._door(side, each.frame)

    def _came_out(self, side: Side, each: _Sent) -> bool:
        """Tell whether the packet of a frame came out where it must, and nothing else of it."""
        if side.egress is None:  # the firewall's own relay takes it
            return any(accepts(frame, each.port) for _, frame in each.out)
        return [name for name, _ in each.out] == [side.egress] and MARK[:12] not in each.out[0][1]

    def _conclude(self, side: Side, each: _Sent, problem: str | None) -> None:
        passes = self._passes(side, each)
        expected = Expected(Verdict.PERMIT, side.flow) if passes else Expected(Verdict.DENY, side.flow, frame=True)
        if problem is not None:
            self._report(side, each, expected, Status.ERROR, problem)
        elif not each.arrived:
            self._report(side, each, expected, Status.ERROR, "the frame did not arrive at the firewall")
        elif passes:
            good = self._came_out(side, each)
            self._report(
                side, each, expected, Status.PASS if good else Status.DEVIATION, "its packet did not pass alone"
            )
        elif each.out:
            by = ", ".join(sorted({name for name, _ in each.out}))
            self._report(side, each, expected, Status.DEVIATION, f"what is in it passed, out of {by}")
        elif each.inside and each.frame[12:14] != each.plainly[12:14]:
            self._report(side, each, expected, Status.DEVIATION, "the engine copied it to the kernel")
        else:
            self._report(side, each, expected, Status.PASS, "")

    def _count(self, side: Side, tried: Sequence[_Sent], rise: int) -> None:
        """Hold the kernel's counter against what it must have refused."""
        wanted = sum(self._door(side, each.frame) for each in tried)
        if rise != wanted:
            expected = Expected(Verdict.DENY, side.flow, frame=True)
            said = f"{FRAME_COUNTER} should have risen by {wanted}; it rose by {rise}"
            self._report(side, tried[0], expected, Status.DEVIATION, said, probe="all shapes together")

    def _report(
        self, side: Side, each: _Sent, expected: Expected, status: Status, observed: str, *, probe: str | None = None
    ) -> None:
        behind = " before an engine" if side.interface in self._behind else ""
        what = "an answer" if side.answers else "a SYN"
        ends = [str(side.source), str(side.destination)]
        if side.answers:
            ends.reverse()
        self._results.add(
            Outcome(
                stage=STAGE,
                source=ends[0],
                destination=ends[1],
                probe=probe or f"{each.label}, around {what}, by {side.interface}{behind}",
                family=side.family,
                firewall=self._firewall.id,
                expected=expected,
                status=status,
                observed=observed,
                frames=(each.frame, *(frame for _, frame in each.out[:4])),
            )
        )


def _known(frame: bytes) -> bytes:
    """Return by what a frame is known again after the kernel has taken a tag off: its addresses and its end."""
    return frame[:12] + frame[-40:]
