"""Sockets on all interfaces of one firewall, outside and inside: what is sent, what arrives, what comes out."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TextIO

from conformance.lab import Lab
from conformance.lab.scope import Scope
from conformance.probe.shape import number_of
from netpolicy.topology.model import Firewall

_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_IGNORE_OUTGOING = 263, 6, 23
_SO_RCVBUFFORCE = 33
_BUFFER = 64 << 20
"""Bytes; the kernel accounts some 800 for a small frame."""
_MAX_FRAME = 2048
_STATISTICS = struct.Struct("@II")


class WireError(Exception):
    """The sockets lost something, so that nothing that was seen through them counts."""


@dataclass(slots=True)
class Seen:
    """What a batch left behind."""

    arrived: set[int] = field(default_factory=set)
    """Numbers of the probes that reached the firewall's interface."""
    left: list[tuple[str, bytes]] = field(default_factory=list)
    """Frames that came out of the firewall, with the interface."""


class Wire:
    """All wires of one firewall in an isolated lab.

    In a firewall of the lab, sockets inside see what arrives.  Of one that is elsewhere, the tap devices count what its
    network cards have taken: of an exchange either all frames have arrived, or none is known to.
    """

    def __init__(self, lab: Lab, firewall: Firewall, scope: Scope, stack: ExitStack) -> None:
        self._lab = lab
        self._scope = scope
        self._sockets: dict[str, socket.socket] = {}
        self._arrivals: list[socket.socket] = []
        self._taken: TapCounts | None = None
        for interface in firewall.interfaces:
            port = lab.wire_port(firewall.id, interface.name)
            self._sockets[interface.name] = stack.enter_context(lab.wire.call(packet_socket(port)))
        if firewall.id in lab.elsewhere:
            ports = {each.name: lab.wire_port(firewall.id, each.name) for each in firewall.interfaces}
            self._taken = stack.enter_context(TapCounts(lab, ports))
        else:
            inside = lab.namespace(firewall.id)
            for interface in firewall.interfaces:
                self._arrivals.append(stack.enter_context(inside.call(packet_socket(interface.name))))

    def exchange(self, interface: str, frames: Sequence[bytes], last: Callable[[bytes], bool], patience: float) -> Seen:
        """Send frames to one interface of the firewall and gather what arrives and what comes out.

        Args:
            interface: Of the firewall.
            frames: Sent in this order.
            last: Whether a frame that comes out shows that all that were sent have been dealt with.
            patience: Seconds to wait for it.

        Raises:
            WireError: A socket lost frames.
            ScopeError: The frames must not be sent.

        """
        self._scope.admit_frames(self._lab.wire, frames)
        seen = Seen()
        sender = self._sockets[interface]
        before = self._taken.of(interface) if self._taken is not None else None
        for begin in range(0, len(frames), _CHUNK):
            for frame in frames[begin : begin + _CHUNK]:
                send(sender, frame)
            self._gather(seen)
        deadline = time.monotonic() + patience
        while not any(last(frame) for _, frame in reversed(seen.left)) and time.monotonic() < deadline:
            select.select([*self._sockets.values()], [], [], 0.02)
            self._gather(seen)
        self._check_losses()
        if self._taken is not None and before is not None:
            after = self._taken.of(interface)
            if after.lost != before.lost:
                raise WireError(f"the network card of {interface} has not taken {after.lost - before.lost} frames")
            if after.taken - before.taken >= len(frames):
                seen.arrived.update(number for frame in frames if (number := number_of(frame)) is not None)
        return seen

    def send(self, interface: str, frames: Sequence[bytes]) -> None:
        """Send frames to one interface of the firewall, and wait for nothing.

        Raises:
            ScopeError: The frames must not be sent.

        """
        self._scope.admit_frames(self._lab.wire, frames)
        for frame in frames:
            send(self._sockets[interface], frame)

    def gather(self) -> Seen:
        """Return what has arrived and come out since the last time.

        Raises:
            WireError: A socket lost frames.

        """
        seen = Seen()
        self._gather(seen)
        self._check_losses()
        return seen

    def taken(self, interface: str) -> Taken:
        """Return what a network card of a firewall that is elsewhere has taken.

        Raises:
            WireError: It is not elsewhere.

        """
        if self._taken is None:
            raise WireError("a firewall of the lab has no tap devices")
        return self._taken.of(interface)

    def drain(self) -> None:
        """Forget what has come so far."""
        self._gather(Seen())

    def _gather(self, seen: Seen) -> None:
        for arrivals in self._arrivals:
            for frame in received(arrivals):
                number = number_of(frame)
                if number is not None:
                    seen.arrived.add(number)
        for interface, outside in self._sockets.items():
            seen.left.extend((interface, frame) for frame in received(outside))

    def _check_losses(self) -> None:
        check_losses((*self._arrivals, *self._sockets.values()))


def check_losses(captures: Iterable[socket.socket]) -> None:
    """Ask packet sockets what they have lost since they were asked last.

    Raises:
        WireError: One has lost a frame, so that nothing is known of what passed.

    """
    for each in captures:
        _, lost = _STATISTICS.unpack(each.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size))
        if lost:
            raise WireError(f"a capture lost {lost} frames")


@dataclass(frozen=True, slots=True)
class Taken:
    """What has become of the frames for a network card since there is its tap."""

    taken: int
    """By the card."""
    lost: int
    """Because it did not take them in time."""


class TapCounts:
    """The counters of the lab's tap devices; closes with its context."""

    def __init__(self, lab: Lab, ports: Mapping[str, str]) -> None:
        """Look at some ports: interface to device in the wire's namespace."""
        self._ports = ports
        # What is open shows the namespace in which it was opened, whoever reads it.
        self._table = lab.wire.call(_counters)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._table.close()

    def of(self, interface: str) -> Taken:
        """Return the counters of an interface's tap."""
        self._table.seek(0)
        for line in self._table:
            device, _, counters = line.partition(":")
            if device.strip() == self._ports[interface]:
                numbers = [int(each) for each in counters.split()]
                return Taken(numbers[_SENT_PACKETS], numbers[_SENT_DROPPED])
        raise WireError(f"the tap of {interface} is gone")


def _counters() -> TextIO:
    return Path("/proc/thread-self/net/dev").open(encoding="ascii")


_SENT_PACKETS, _SENT_DROPPED = 9, 11
"""Columns of /proc/net/dev, after the device: eight of what was received, then bytes, packets, errors, drops."""

_CHUNK = 2000
_SENDER = bytes.fromhex("020000000001")


def macs_to(firewall: Firewall, ingress: str) -> bytes:
    """Return the destination and source MAC address of frames to an interface."""
    interface = next(each for each in firewall.interfaces if each.name == ingress)
    return bytes.fromhex(interface.mac.replace(":", "")) + _SENDER


@contextmanager
def wired(lab: Lab, firewall: Firewall, scope: Scope) -> Iterator[Wire]:
    """Open the wires of a firewall; the lab must be isolated."""
    with ExitStack() as stack:
        wire = Wire(lab, firewall, scope, stack)
        wire.drain()
        yield wire


def packet_socket(device: str) -> PacketSocket:
    """Return what opens a socket that sees all that comes in by a device, and sends on it."""
    return PacketSocket(device)


@dataclass(frozen=True, slots=True)
class PacketSocket:
    """Opens a packet socket in the network namespace in which it is called."""

    device: str

    def __call__(self) -> socket.socket:
        """Return a socket that sees all that comes in from the other end of a device, and sends on it."""
        found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        found.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        found.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        found.bind((self.device, _ETH_P_ALL))
        found.setblocking(False)
        return found


def send(sender: socket.socket, frame: bytes) -> None:
    """Send a frame, and wait while the queue is full."""
    while True:
        try:
            sender.send(frame)
        except OSError as error:
            if error.errno not in {errno.ENOBUFS, errno.EAGAIN}:
                raise
            os.sched_yield()  # the queue is full; the frame has not been sent
        else:
            return


def received(source: socket.socket) -> Iterator[bytes]:
    """Yield the frames that have come."""
    while True:
        try:
            yield source.recv(_MAX_FRAME)
        except BlockingIOError:
            return
