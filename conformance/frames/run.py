"""Every shape of frame around a permitted conversation, on a wire of its way, from either side."""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from conformance.frames.conversation import Conversation, Meeting
from conformance.frames.shapes import Around, Shape, plain, shapes
from conformance.lab import Lab, LabError
from conformance.lab.scope import Scope
from conformance.probe.wire import macs_to, packet_socket
from netpolicy.topology.model import Address, Node

_SETTLE = 0.5
"""Seconds in which what firewalls have let through would have been read."""
_ARRIVAL_SECONDS = 2.0
_BATCH = 50
"""Conversations that are open at once."""


@dataclass(frozen=True, slots=True)
class Line:
    """A wire on the way between two nodes."""

    source: Node
    destination: Node
    addresses: tuple[Address, Address]
    port: int
    firewall: str
    interface: str
    """Of the firewall: by which frames come."""
    answer: bool = False
    """Whether they come from the server's side."""


@dataclass(slots=True)
class Tried:
    """One frame, and what came of it."""

    label: str
    frame: bytes
    plainly: bytes
    """The same packet in a plain frame, which says where it would go."""
    conversation: Conversation
    arrived: bool = False
    """Whether it was seen at the ingress of the wire."""
    read: bytes = b""
    """By the application at the far end."""


def run_frames(
    lab: Lab, scope: Scope, line: Line, *, good: bytes | None, chosen: Sequence[tuple[str, Shape]] | None = None
) -> list[Tried]:
    """Try shapes, each on a connection of its own that the firewalls have let come to be.

    Without its shape a frame would be judged by what it says; with it, no byte may arrive.  Before and after each batch
    a plain frame says what may be said, and arrives: the way is open.

    Args:
        lab: With or without engines.
        scope: Admits the frames.
        line: Where.
        good: What may be said; None if nothing may from that side before the other has spoken.
        chosen: All shapes by default.

    Raises:
        LabError: What may be said did not arrive.
        ScopeError: Something may not be sent.
        OSError: A permitted connection does not come to be.

    """
    listed = list(shapes()) if chosen is None else list(chosen)
    found: list[Tried] = []
    nodes = line.source, line.destination
    here, there = (lab.namespace(each.id) for each in nodes)
    with Meeting.held(here, line.addresses[0], there, line.addresses[1], line.port) as meeting:
        for begin in range(0, len(listed), _BATCH):
            with ExitStack() as stack:
                trial = _Trial(lab, scope, line, meeting, stack)
                trial.assert_open(good)
                found.extend(trial.batch(listed[begin : begin + _BATCH]))
                trial.assert_open(good)
            lab.flush_conntrack(line.firewall)
    return found


@dataclass(frozen=True, slots=True)
class _Trial:
    """One batch of conversations on a line."""

    lab: Lab
    scope: Scope
    line: Line
    meeting: Meeting
    stack: ExitStack
    """Ends the conversations."""

    def batch(self, listed: Sequence[tuple[str, Shape]]) -> list[Tried]:
        """Send one frame of each shape, and read what has come of it."""
        tried = [self._prepared(self.meeting.open(self.stack), label, shape) for label, shape in listed]
        self._send(tried)
        time.sleep(_SETTLE)
        for each in tried:
            each.read = each.conversation.read(answer=self.line.answer)
        return tried

    def assert_open(self, good: bytes | None) -> None:
        """Say what may be said, and await it at the far end; or only open a connection."""
        conversation = self.meeting.open(self.stack)
        if good is None:
            return
        self._send([self._prepared(conversation, "plain", plain, good)])
        reader = conversation.client if self.line.answer else conversation.server
        select.select([reader], [], [], 5.0)
        if conversation.read(answer=self.line.answer) != good:
            raise LabError(f"{self.line.firewall} {self.line.interface}: what may be said does not arrive")

    def _prepared(self, conversation: Conversation, label: str, shape: Shape, said: bytes | None = None) -> Tried:
        line = self.line
        request = f"GET /{conversation.source[1]} HTTP/1.1\r\nHost: {line.destination.id}\r\n\r\n".encode()
        payload = said or request
        macs = macs_to(self.lab.topology.firewalls[line.firewall], line.interface)
        around = Around(macs[:6], macs[6:], conversation.segment(payload, answer=line.answer), payload)
        return Tried(label, shape(around), plain(around), conversation)

    def _send(self, tried: Sequence[Tried]) -> None:
        """Send all, and mark those that were seen at the ingress of the wire: before an engine, if there is one."""
        lab, firewall, interface = self.lab, self.line.firewall, self.line.interface
        self.scope.admit_frames(lab.wire, [each.plainly for each in tried])
        engine = lab.engines.get((firewall, interface))
        inside = engine.namespace if engine is not None else lab.namespace(firewall)
        outside = packet_socket(lab.wire_port(firewall, interface))
        with inside.call(packet_socket(interface)) as ingress, lab.wire.call(outside) as sender:
            for each in tried:
                sender.send(each.frame)
            waiting = {_known(each.frame): each for each in tried}
            end = time.monotonic() + _ARRIVAL_SECONDS
            while waiting and time.monotonic() < end:
                if select.select([ingress], [], [], 0.1)[0]:
                    found = waiting.pop(_known(ingress.recv(4096)), None)
                    if found is not None:
                        found.arrived = True


def _known(frame: bytes) -> bytes:
    """Return by what a frame is known again after the kernel has taken a tag off: its addresses and its end."""
    return frame[:12] + frame[-40:]
