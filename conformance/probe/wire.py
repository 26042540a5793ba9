"""Sockets on all interfaces of one firewall, outside and inside: what is sent, what arrives, what comes out."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

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
    """All wires of one firewall in an isolated lab."""

    def __init__(self, lab: Lab, firewall: Firewall, scope: Scope, stack: ExitStack) -> None:
        self._lab = lab
        self._scope = scope
        self._sockets: dict[str, socket.socket] = {}
        self._arrivals: list[socket.socket] = []
        inside = lab.namespace(firewall.id)
        for interface in firewall.interfaces:
            port = lab.wire_port(firewall.id, interface.name)
            self._sockets[interface.name] = stack.enter_context(lab.wire.call(_opener(port)))
            self._arrivals.append(stack.enter_context(inside.call(_opener(interface.name))))

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
        for begin in range(0, len(frames), _CHUNK):
            for frame in frames[begin : begin + _CHUNK]:
                _send(sender, frame)
            self._gather(seen)
        deadline = time.monotonic() + patience
        while not any(last(frame) for _, frame in reversed(seen.left)) and time.monotonic() < deadline:
            select.select([*self._sockets.values()], [], [], 0.02)
            self._gather(seen)
        self._check_losses()
        return seen

    def drain(self) -> None:
        """Forget what has come so far."""
        self._gather(Seen())

    def _gather(self, seen: Seen) -> None:
        for arrivals in self._arrivals:
            for frame in _frames(arrivals):
                number = number_of(frame)
                if number is not None:
                    seen.arrived.add(number)
        for interface, outside in self._sockets.items():
            seen.left.extend((interface, frame) for frame in _frames(outside))

    def _check_losses(self) -> None:
        for each in (*self._arrivals, *self._sockets.values()):
            statistics = each.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
            _, lost = _STATISTICS.unpack(statistics)
            if lost:
                raise WireError(f"a capture lost {lost} frames")


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


def _opener(device: str) -> _Opener:
    return _Opener(device)


@dataclass(frozen=True, slots=True)
class _Opener:
    device: str

    def __call__(self) -> socket.socket:
        """Return a socket that sees all that comes in from the other end of a device, and sends on it."""
        found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        found.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        found.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        found.bind((self.device, _ETH_P_ALL))
        found.setblocking(False)
        return found


def _send(sender: socket.socket, frame: bytes) -> None:
    while True:
        try:
            sender.send(frame)
        except OSError as error:
            if error.errno not in {errno.ENOBUFS, errno.EAGAIN}:
                raise
            os.sched_yield()  # the queue is full; the frame has not been sent
        else:
            return


def _frames(source: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            yield source.recv(_MAX_FRAME)
        except BlockingIOError:
            return
