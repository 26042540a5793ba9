"""Random frames through an engine and a kernel, and what comes out at the far side.

Both ends are played here, frame by frame: a handshake that the firewall and its engine let through, then frames with a
request in clear, each changed at random. Nothing of it may be said on such a connection, so whatever byte comes out of
the firewall towards the server has been read by the kernel, and either not by the engine or not as what it is.
"""

from __future__ import annotations

import select
import ssl
import struct
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from random import Random

from scapy.layers.inet import TCP
from scapy.layers.inet6 import IPv6  # noqa: F401 - so that Ether knows it
from scapy.layers.l2 import Ether

from conformance.frames.conversation import tcp_packet
from conformance.frames.mutations import mutated
from conformance.frames.run import Line
from conformance.frames.shapes import IPV4, IPV6
from conformance.lab import Lab, LabError
from conformance.lab.engine import Engine
from conformance.lab.scope import Scope
from conformance.probe.wire import check_losses, macs_to, packet_socket, received, send
from netpolicy.topology.identity import server_name
from netpolicy.topology.model import Address

MARK = b"GET /UNSEEN"
"""Stands in every request, several times: any of its bytes that comes out shows it."""
_REQUEST = MARK * 12 + b" HTTP/1.1\r\n\r\n"
_SHORTEST_PART = 8
"""Bytes of it that show it; less is also what a header may hold by chance."""
_FRAMES = 4
"""Of each connection, after its handshake."""
_ROUND = 250
"""Connections at once."""
_REMEMBERED = 16_000
"""Connections until the engine begins anew: those that it has dropped it remembers for minutes."""
_ENOUGH = 0.9
_GREETED = 0.5
"""Of connections, begin with a good ClientHello: the engine takes them for TLS."""
_HELLO = 2048
"""Bytes that a client may say before it is answered, as docs/threats.md says."""
_RANDOM, _SESSION = slice(11, 43), slice(44, 76)
"""Of a ClientHello with its record's header (RFC 5246, 7.4.1.2)."""
_SYN, _RST, _ACK = 0x02, 0x04, 0x10
_NUMBERS, _WINDOW = 1 << 32, 1 << 16
_CLIENT, _SERVER = 1000, 5000
"""The first sequence number of either."""
_FIRST_PORT, _PORTS = 1024, 64000
_PATIENCE, _SETTLE = 5.0, 0.5
_BURST, _PAUSE = 500, 0.01


@dataclass(slots=True)
class Differential:
    """What a run has found."""

    seed: int
    frames: int = 0
    """Mutated ones."""
    connections: int = 0
    """That came to be, through engine and kernel."""
    seconds: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    doors: Counter[str] = field(default_factory=Counter)
    unseen: list[bytes] = field(default_factory=list)
    """Frames that came out and carry bytes of a request."""
    astray: int = 0
    """Frames with such bytes that came out behind a good ClientHello, within what a client may say before it is
    answered, and where no TCP takes them for its stream's next."""

    def note(self, engine: Engine, offset: int) -> int:
        """End an engine, add what it says to have done, and return where its events end now."""
        engine.stop()
        counters = {}
        for event, after in engine.events(offset=offset):
            offset = after
            if event["event_type"] == "stats":
                counters = event["stats"]
        if not counters:
            raise LabError("the engine does not tell what it has done")
        self.doors["engine: given by its filter"] += counters["capture"]["kernel_packets"]
        self.doors["engine: dropped"] += counters["ips"]["blocked"]
        return offset


def run_differential(
    lab: Lab, scope: Scope, lines: Sequence[Line], *, seed: int, frames: int, among: Sequence[str] | None = None
) -> Differential:
    """Send frames to one firewall with an engine, in a lab that is isolated.

    Args:
        lab: With engines.
        scope: Admits the frames.
        lines: One for each family, of the same wire.
        seed: The same seed gives the same frames.
        frames: How many, changed ones.
        among: Kinds of changes; all if not given.

    Raises:
        LabError: Connections do not come to be: nothing is shown.
        ScopeError: The frames must not be sent.
        WireError: A capture lost frames.

    """
    found = Differential(seed)
    begun = time.monotonic()
    firewall, interface = lines[0].firewall, lines[0].interface
    engine = lab.engines[firewall, interface]
    before = lab.counters(firewall)
    offset = engine.eve.stat().st_size if engine.eve.exists() else 0
    with ExitStack() as stack:
        player = _Player(lab, scope, lines, found, stack, among=among)
        asked = 0
        while found.frames < frames:
            count = min(_ROUND, -(-(frames - found.frames) // _FRAMES))
            if asked + count > _REMEMBERED:
                player.await_end()
                offset = found.note(engine, offset)
                engine.start()
                lab.flush_conntrack(firewall)
                asked = 0
            player.round(count)
            asked += count
        player.await_end()
    found.note(engine, offset)
    engine.start()
    after = lab.counters(firewall)
    found.doors.update({name: after[name] - before.get(name, 0) for name in after if name.startswith("deny_")})
    found.seconds = time.monotonic() - begun
    return found


class _Player:
    """Plays both ends of connections through one firewall."""

    def __init__(
        self,
        lab: Lab,
        scope: Scope,
        lines: Sequence[Line],
        found: Differential,
        stack: ExitStack,
        *,
        among: Sequence[str] | None,
    ) -> None:
        self._lab, self._scope, self._lines, self._found, self._among = lab, scope, lines, found, among
        self._random = Random(found.seed)  # noqa: S311 - the same seed must give the same frames
        known = lab.topology.firewalls[lines[0].firewall]
        self._macs = {each.name: macs_to(known, each.name) for each in known.interfaces}
        self._near = lines[0].interface
        self._sockets = {
            each.name: stack.enter_context(lab.wire.call(packet_socket(lab.wire_port(known.id, each.name))))
            for each in known.interfaces
        }
        self._hello = _client_hello(self._random, lab, lines[0])
        self._connections = 0
        self._said: dict[tuple[Address, int], bytes] = {}
        """What the clients of connections have said before anything is changed."""

    def round(self, count: int) -> None:
        """Open connections, and send on each frames that are changed.

        Raises:
            LabError: Not nearly all of them come to be.

        """
        opened = [self._next() for _ in range(count)]
        ways = {(line.addresses[0], port): (line, port) for line, port in opened}
        self._send(self._near, [self._frame(line, port, _SYN, 0, b"") for line, port in opened])
        asked = self._gather(set(ways), far=True)
        for interface in {name for name, _ in asked.values()}:
            answers = [
                self._frame(*ways[key], _SYN | _ACK, 0, b"", to=name)
                for key, (name, _) in asked.items()
                if name == interface
            ]
            self._send(interface, answers)
        answered = self._gather(set(asked), far=False)
        if len(answered) < count * _ENOUGH:
            raise LabError(f"of {count} connections {len(answered)} came to be")
        self._found.connections += len(answered)
        self._said.update({key: self._hello if self._random.random() < _GREETED else b"" for key in ways})
        living = [(*ways[key], self._said[key]) for key in answered]
        self._send(self._near, [self._frame(line, port, _ACK, 1, hello) for line, port, hello in living])
        plainly, changed = [], []
        for line, port, hello in living:
            plain = self._frame(line, port, _ACK, 1 + len(hello), _REQUEST)
            for _ in range(_FRAMES):
                kind, frame = mutated(self._random, plain, self._among)
                self._found.kinds[kind] += 1
                plainly.append(plain)
                changed.append(frame)
        self._send(self._near, changed, plainly)
        self._found.frames += len(changed)

    def await_end(self) -> None:
        """Wait until everything that was sent has been dealt with: what is sent last has come out.

        Raises:
            LabError: It has not.
            WireError: A capture lost frames.

        """
        line, port = self._next()
        self._send(self._near, [self._frame(line, port, _SYN, 0, b"")])
        if not self._gather({(line.addresses[0], port)}, far=True):
            raise LabError("the last connection does not begin")
        time.sleep(_SETTLE)
        self._gather(set(), far=True)
        check_losses(self._sockets.values())

    def _next(self) -> tuple[Line, int]:
        number = self._connections
        self._connections += 1
        return self._lines[number % len(self._lines)], _FIRST_PORT + number // len(self._lines) % _PORTS

    def _frame(self, line: Line, port: int, flags: int, sent: int, payload: bytes, *, to: str | None = None) -> bytes:
        """Return a frame of a connection: to the server, or its answer that comes by another interface."""
        client, server = line.addresses
        here, there = (_CLIENT + sent, _SERVER + 1 if flags & _ACK else 0), (_SERVER, _CLIENT + 1)
        if to is None:
            packet = tcp_packet(client, server, (port, line.port), here, payload, flags)
        else:
            packet = tcp_packet(server, client, (line.port, port), there, payload, flags)
        ethertype = struct.pack("!H", IPV4 if client.version == 4 else IPV6)
        return self._macs[to or self._near] + ethertype + packet

    def _note(self, frame: bytes) -> None:
        """Count a frame that came out with bytes of a request."""
        packet = Ether(frame).payload
        segment = packet.getlayer(TCP)
        said = self._said.get((ip_address(packet.src), segment.sport), b"") if segment is not None else b""
        first = _CLIENT + 1
        if said and segment is not None and _is_early(segment, first) and not _is_next(segment, first + len(said)):
            self._found.astray += 1
        else:
            self._found.unseen.append(frame)

    def _send(self, interface: str, frames: Sequence[bytes], plainly: Sequence[bytes] | None = None) -> None:
        self._scope.admit_frames(self._lab.wire, frames if plainly is None else plainly)
        for number, frame in enumerate(frames):
            send(self._sockets[interface], frame)
            if number % _BURST == _BURST - 1:
                time.sleep(_PAUSE)  # an engine's ring holds 2,048

    def _gather(self, wanted: set[tuple[Address, int]], *, far: bool) -> dict[tuple[Address, int], tuple[str, bytes]]:
        """Return the handshake's frames that come out, by client, and keep what else does."""
        found: dict[tuple[Address, int], tuple[str, bytes]] = {}
        end = time.monotonic() + _PATIENCE
        while True:
            for interface, each in self._sockets.items():
                for frame in received(each):
                    if MARK[:_SHORTEST_PART] in frame:
                        self._note(frame)
                    client = _client(frame, far=far)
                    if client in wanted and (interface != self._near) == far:
                        found[client] = (interface, frame)
            if len(found) >= len(wanted) or time.monotonic() > end:
                return found
            select.select(list(self._sockets.values()), [], [], 0.02)


def _is_early(segment: TCP, first: int) -> bool:
    """Tell whether a segment lies within what a client may say before it is answered."""
    ahead: int = (segment.seq - first) % _NUMBERS
    return ahead + len(bytes(segment.payload)) <= _HELLO


def _is_next(segment: TCP, expected: int) -> bool:
    """Tell whether a TCP that has all before `expected` takes a segment for what follows (RFC 9293, 3.10.7.4).

    A wrong checksum counts as a right one.
    """
    behind = (expected - segment.seq) % _NUMBERS
    acknowledged = (_SERVER + 1 - segment.ack) % _NUMBERS
    flags = int(segment.flags)
    return (
        bool(flags & _ACK)
        and not flags & (_SYN | _RST)
        and acknowledged < _WINDOW
        and behind < len(bytes(segment.payload))
    )


def _client_hello(random: Random, lab: Lab, line: Line) -> bytes:
    """Return a ClientHello that the line's flow permits, with a random and a session of the seed's."""
    services = lab.topology.services.values()
    alpn = next(each.alpn for each in services if any(part.first <= line.port <= part.last for part in each.ports))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([alpn])
    said = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), said, server_hostname=server_name(lab.topology, line.destination))
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    hello = bytearray(said.read())
    for place in (_RANDOM, *((_SESSION,) if hello[_SESSION.start - 1] else ())):
        hello[place] = random.randbytes(place.stop - place.start)
    return bytes(hello)


def _client(frame: bytes, *, far: bool) -> tuple[Address, int] | None:
    """Return address and port of the client of a plain TCP frame, None if it is none."""
    tcp = 34 if frame[12:14] == struct.pack("!H", IPV4) else 54
    if len(frame) < tcp + 20 or not frame[tcp + 13] & _SYN:
        return None
    size = 4 if tcp == 34 else 16
    source = tcp - 2 * size if far else tcp - size
    (port,) = struct.unpack_from("!H", frame, tcp if far else tcp + 2)
    return ip_address(frame[source : source + size]), port
