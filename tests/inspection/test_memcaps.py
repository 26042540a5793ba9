"""An engine whose memory is used up: what it cannot inspect does not pass, and it recovers when the flood is over.

Each memory has a cap and a policy for when it is reached. Caps are made small, in the lab's copy of the configuration,
so that a flood of a second reaches them; times after which silence is forgotten as well.
"""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest

from conformance.frames.conversation import Meeting, tcp_packet
from conformance.lab import Lab
from conformance.lab.engine import Engine
from conformance.lab.rooted import Root
from conformance.probe.wire import check_losses, packet_socket, received, send
from tests.inspection.living import Living, deviations, inspect, living_network
from tests.lab.small import PORT

_FIREWALL, _INTERFACE = "edge", "wan"
_ENDS = ip_address("10.77.3.10"), ip_address("10.77.1.10")
_MARK = b"GET /UNINSPECTED HTTP/1.1\r\n\r\n"
_SYN = 0x02
_FLOOD = 6000
_HELD = 60
"""Connections of which a segment is missing."""
_RECOVERED, _SETTLE = 60.0, 0.5
_HELLO = bytes.fromhex("16030101fc010001f80303") + bytes(889)
"""What begins like a ClientHello."""
_HEAD = bytes.fromhex("0277000002010277000002020800")
"""From the far end of the line to the firewall."""
_TIMES = """
flow-timeouts:
  default: {new: 1, established: 1, closed: 0, emergency-new: 1, emergency-established: 1, emergency-closed: 0}
  tcp: {new: 1, established: 4, closed: 0, emergency-new: 1, emergency-established: 4, emergency-closed: 0}
"""


@pytest.fixture(scope="module", name="living")
def _living(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Living]:
    root = Root.find()
    assert root is not None, "make setup"
    with living_network(root, tmp_path_factory.mktemp("memcaps"), "memcaps") as found:
        yield found


def _openings(_meeting: Meeting, _stack: ExitStack) -> Iterator[bytes]:
    """Yield first segments of connections that nobody permits, each of a port and an address of its own."""
    for number in range(_FLOOD):
        source = ip_address(int(ip_address("10.77.3.20")) + number % 200)
        ports = 1024 + number % 60000, 2000 + number // 100
        yield tcp_packet(source, _ENDS[1], ports, (number, 0), b"", _SYN)


def _gaps(meeting: Meeting, stack: ExitStack) -> Iterator[bytes]:
    """Yield segments of permitted connections whose first byte is missing, so that the engine keeps them."""
    for _ in range(_HELD):
        conversation = meeting.open(stack)
        packet = conversation.segment(b"")
        ports = struct.unpack_from("!HH", packet, 20)
        sequence, acknowledged = struct.unpack_from("!II", packet, 24)
        for ahead in (1, 901):
            numbers = (sequence + ahead) % (1 << 32), acknowledged
            yield tcp_packet(_ENDS[1], _ENDS[0], (ports[0], ports[1]), numbers, _HELLO)


@dataclass(frozen=True, slots=True)
class _Cap:
    """A memory, how it is made small, and what fills it."""

    changes: tuple[tuple[str, str], ...]
    flood: Callable[[Meeting, ExitStack], Iterator[bytes]]
    reason: str
    """That the engine gives for what it drops then: the policy of this memory."""


_CAPS = {
    "stream": _Cap(
        (
            ("memcap: 64mb\n  memcap-policy: drop-flow", "memcap: 100kb\n  memcap-policy: drop-flow"),
            ("prealloc-sessions: 1024", "prealloc-sessions: 1"),
        ),
        _openings,
        "stream memcap",
    ),
    "reassembly": _Cap(
        (("memcap: 128mb", "memcap: 64kb"), ("segment-prealloc: 1024", "segment-prealloc: 1")),
        _gaps,
        "stream reassembly",
    ),
    "flow": _Cap(
        (
            ("memcap: 64mb\n  memcap-policy: drop-packet", "memcap: 300kb\n  memcap-policy: drop-packet"),
            ("hash-size: 16384\n  prealloc: 2048", "hash-size: 256\n  prealloc: 16"),
        ),
        _openings,
        "flow memcap",
    ),
}


@contextmanager
def _small(lab: Lab, cap: _Cap) -> Iterator[Engine]:
    """Run the engine at the line with a small memory."""
    path = lab.engine_files(_FIREWALL) / "suricata.yaml"
    before = path.read_text(encoding="utf-8")
    changed = before
    for old, new in cap.changes:
        assert changed.count(old) == 1, old
        changed = changed.replace(old, new)
    engine = lab.engines[_FIREWALL, _INTERFACE]
    try:
        _restart(engine, path, changed + _TIMES)
        yield engine
    finally:
        _restart(engine, path, before)


def _restart(engine: Engine, path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    engine.stop()
    engine.start()


def _reasons(engine: Engine, offset: int) -> Counter[str]:
    """Return why the engine has dropped packets since then."""
    events = [event for event, _ in engine.events(offset=offset)]
    return Counter(event["drop"]["reason"] for event in events if event["event_type"] == "drop")


def _said_in_clear(meeting: Meeting, stack: ExitStack) -> None:
    """Say something forbidden on new connections, as far as any come to be."""
    for _ in range(5):
        with suppress(OSError):
            meeting.open(stack, 0.5).client.sendall(_MARK)


@pytest.mark.parametrize("memory", _CAPS)
def test_a_memory_that_is_used_up_closes_and_recovers(living: Living, memory: str) -> None:
    """Until it is free again, nothing forbidden comes out, of old or new connections; then what is permitted passes."""
    lab, _ = living
    cap = _CAPS[memory]
    with _small(lab, cap) as engine:
        offset = engine.eve.stat().st_size
        with ExitStack() as stack:
            ends = (lab.namespace("alpha"), _ENDS[1], lab.namespace("gamma"), _ENDS[0])
            meeting = stack.enter_context(Meeting.held(*ends, PORT))
            old = meeting.open(stack)
            line = stack.enter_context(lab.wire.call(packet_socket(lab.wire_port(_FIREWALL, _INTERFACE))))
            sent = stack.enter_context(lab.wire.call(packet_socket(lab.wire_port("alpha", "eth0"))))
            for packet in cap.flood(meeting, stack):
                send(line, _HEAD + packet)
            old.client.sendall(_MARK)
            _said_in_clear(meeting, stack)
            time.sleep(_SETTLE)
            assert any(_MARK in frame for frame in received(sent))
            assert not any(_MARK in frame for frame in received(line))
            check_losses((sent, line))
        assert cap.reason in _reasons(engine, offset), "the memory was not used up"
        end = time.monotonic() + _RECOVERED
        while found := deviations(inspect(living, frozenset())):
            assert time.monotonic() < end, found
