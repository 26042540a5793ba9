"""Forbidden frames on every interface of a firewall, without end, while it is switched on; none may come out.

Among them, ten times a second, one permitted connection is begun: when the first one comes through, the firewall is
open to what it permits, and all that was sent before and has not come out was stopped by it, not by a cut cable.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from types import TracebackType
from typing import Self

from conformance.expect import Expectation, Packet, Permitted
from conformance.outcome import Verdict
from conformance.probe.batch import Probe, accepts
from conformance.probe.shape import Shape, number_of, oddity, template, transport
from conformance.probe.wire import Taken, Wire, macs_to
from conformance.stages.attack import attack
from conformance.stages.boundary import boundary
from conformance.stages.matrix import crossings, matrix
from netpolicy.topology.model import Assurance, Firewall

RATE = 400
"""Frames a second on each interface: an emulated machine must still find time to boot."""
_DIFFERENT = 2000
"""Different frames on each interface."""
_TICK = 0.05
_SENTINELS = 0xF0000000
_SENTINEL_TICKS = 2
_RESET_SECONDS = 1.0


@dataclass(slots=True)
class Downpour:
    """What was sent and what became of it."""

    sent: dict[str, int] = field(default_factory=dict)
    """Forbidden frames, by interface."""
    taken: dict[str, Taken] = field(default_factory=dict)
    """All frames that the network card of each interface has taken, and those that it has not."""
    passed: list[tuple[str, bytes]] = field(default_factory=list)
    """Forbidden frames that came out, with the interface."""
    opened: float | None = None
    """When the first permitted connection came through (time.monotonic())."""
    taken_when_opened: dict[str, Taken] = field(default_factory=dict)
    permitted: int = 0
    """Permitted connections that came through."""


class Deluge:
    """Floods while it is entered."""

    def __init__(
        self,
        expectation: Expectation,
        firewall: Firewall,
        wire: Wire,
        rate: int = RATE,
        among: Callable[[Permitted], bool] = lambda _permitted: True,
    ) -> None:
        """Prepare a flood.

        Args:
            expectation: Says what is forbidden.
            firewall: It is elsewhere.
            wire: Its wires, in an isolated lab.
            rate: Frames a second on each interface.
            among: Which permits may be the one that is begun.

        """
        self.found = Downpour(sent=dict.fromkeys((each.name for each in firewall.interfaces), 0))
        self._wire = wire
        self._firewall = firewall
        self._frames = forbidden_frames(expectation, firewall)
        self._permitted = _permitted(expectation, firewall, among)
        self._burst = max(1, int(rate * _TICK))
        self._ended = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="deluge", daemon=True)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure

    def count(self) -> Downpour:
        """Return what has become of it so far."""
        with self._lock:
            return Downpour(
                dict(self.found.sent),
                {interface: self._wire.taken(interface) for interface in self.found.sent},
                list(self.found.passed),
                self.found.opened,
                dict(self.found.taken_when_opened),
                self.found.permitted,
            )

    def _run(self) -> None:
        try:
            streams = {interface: cycle(frames) for interface, frames in self._frames.items()}
            tick, due = 0, time.monotonic()
            while not self._ended.is_set():
                for interface, stream in streams.items():
                    burst = list(islice(stream, self._burst))
                    self._wire.send(interface, burst)
                    self.found.sent[interface] += len(burst)
                if self._permitted is not None and tick % _SENTINEL_TICKS == 0:
                    self._wire.send(self._permitted.ends[0], [self._segment(Shape.SYN, self._permitted, tick)])
                self._look()
                tick += 1
                due += _TICK
                time.sleep(max(0.0, due - time.monotonic()))
            self._reset()
            self._look()
        except BaseException as failed:  # noqa: BLE001 - raised where the flood is left
            self._failure = failed

    def _reset(self) -> None:
        """End what was begun: a relay would repeat its answers for minutes, amid whatever is tried next."""
        permitted = self._permitted
        if permitted is not None:
            resets = [self._segment(Shape.RST, permitted, number) for number in range(len(_PORTS))]
            self._wire.send(permitted.ends[0], resets)
            time.sleep(_RESET_SECONDS)

    def _look(self) -> None:
        seen = self._wire.gather()
        with self._lock:
            for interface, frame in seen.left:
                number = number_of(frame)
                if self._is_permitted(interface, frame, number):
                    self.found.permitted += 1
                    if self.found.opened is None:
                        self.found.opened = time.monotonic()
                        self.found.taken_when_opened = {each: self._wire.taken(each) for each in self.found.sent}
                elif number is not None:
                    self.found.passed.append((interface, frame))

    def _is_permitted(self, interface: str, frame: bytes, number: int | None) -> bool:
        permitted = self._permitted
        if permitted is None:
            return False
        if permitted.egress is not None:
            return interface == permitted.egress and number is not None and number >= _SENTINELS
        return interface == permitted.ends[0] and any(accepts(frame, port) for port in _PORTS)

    def _segment(self, shape: Shape, permitted: Permitted, tick: int) -> bytes:
        ingress, _, source, destination = permitted.ends
        number = _SENTINELS + tick
        return template(shape, source.version).frame(
            number,
            macs_to(self._firewall, ingress),
            source,
            destination,
            source_port=_PORTS[number % len(_PORTS)],
            port=permitted.ports[0].first,
        )


_PORTS = range(30000, 30008)
"""Few, so that the connections of all the time until it opens are never many."""


def forbidden_frames(expectation: Expectation, firewall: Firewall) -> Mapping[str, Sequence[bytes]]:
    """Return, for each interface of a firewall, frames that it must drop: of every stage of a conformance run some."""
    judge = expectation.judge(firewall.id)
    asked: dict[str, list[Probe]] = {each.name: [] for each in firewall.interfaces}
    permits = expectation.permits[firewall.id]
    pairs = crossings(expectation).by_firewall[firewall.id]
    for probes in (matrix(expectation, firewall, pairs), boundary(firewall, permits), attack(expectation, firewall)):
        for probe in probes:
            asked[probe.ingress].append(probe)
    drawn = random.Random(expectation.topology.digest)  # noqa: S311 - reproducible on purpose
    frames: dict[str, list[bytes]] = {}
    for interface, probes_of in asked.items():
        drawn.shuffle(probes_of)
        macs, found = macs_to(firewall, interface), frames.setdefault(interface, [])
        for probe in probes_of:
            family = probe.source_address.version
            packet = Packet(
                interface, probe.source_address, probe.destination_address, transport(probe.shape), probe.port,
                oddity(probe.shape, family),
            )  # fmt: skip
            if judge.judge(packet)[0].verdict is Verdict.PERMIT:
                continue
            number = len(found) + 1
            made = template(probe.shape, family).frame(
                number, macs, probe.source_address, probe.destination_address, source_port=20000 + number,
                port=probe.port,
            )  # fmt: skip
            found.append(made)
            if len(found) == _DIFFERENT:
                break
    return frames


def _permitted(expectation: Expectation, firewall: Firewall, among: Callable[[Permitted], bool]) -> Permitted | None:
    """Return a permit that is open and can be tried from outside; rather through the firewall than to its relay."""
    found = [
        each
        for each in expectation.permits[firewall.id]
        if expectation.closed(each.flow) is None and (each.relayed or each.egress is not None) and among(each)
    ]
    return min(found, key=lambda each: each.flow.assurance is Assurance.TERMINATE, default=None)
