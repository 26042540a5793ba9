"""From the witnesses of a ruleset to frames: what the model calls a state takes traffic to bring about.

New connections and what is invalid are single frames; established and related ones need a live connection, which
exists only where the ruleset lets one begin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address

from conformance.probe.shape import ANSWER_SEQUENCE, SEQUENCE
from conformance.witness.forecast import FORWARDED, NOWHERE, RELAYED, Forecast, Model
from conformance.witness.frame import Content, frame_of, quotation, segment, sent
from conformance.witness.tracking import UNKNOWN, fresh_state, is_error
from netpolicy.proof import fields
from netpolicy.proof.evaluate import Packet
from netpolicy.proof.fields import STATES, Family, Field, State

CLIENT_PORT = 20000
_PORTS = 40000
_OLD = 8
"""Segments of live connections repeat the last bytes, which neither end minds however often it is sent."""
_NO_MACS = bytes(12)
_ETHERNET = 14
_SMALLEST_SCOPE = 2
_WALKED_OR_NONE = {*fields.WALKED, 59}
_GRE = 47
_AUTHENTICATION = 51


@dataclass(frozen=True, slots=True)
class Connection:
    """One that the ruleset lets begin."""

    opening: Packet
    """Its SYN, as it comes in."""
    forecast: Forecast

    @property
    def ingress(self) -> str:
        """By which interface it begins."""
        return str(self.opening[fields.IIF])

    @property
    def relayed(self) -> bool:
        """Whether the firewall's relay is its other end."""
        return self.forecast.end == RELAYED

    def back(self) -> Packet:
        """Return a packet of the other end."""
        return swapped(self.opening)


@dataclass(frozen=True, slots=True)
class Trial:
    """One frame, and what must become of it."""

    packet: Packet
    """As the model sees it."""
    content: Content
    forecast: Forecast
    connection: Connection | None = None

    @property
    def ingress(self) -> str:
        """By which interface it comes in."""
        return str(self.packet[fields.IIF])

    @property
    def number(self) -> int:
        """By which its frame is known again."""
        return self.content.number

    def frame(self, macs: bytes, answer: int = ANSWER_SEQUENCE) -> bytes:
        """Return the frame.

        Args:
            macs: Destination and source.
            answer: With which sequence number the other end of its connection has begun.

        """
        content = self.content
        if self.connection is not None and not content.quoted:
            ends = SEQUENCE + 1, answer + 1
            if self.packet[fields.DIRECTION] == fields.REPLY:
                ends = ends[1], ends[0]
            content = replace(content, sequence=(ends[0] - _OLD) % (1 << 32), acknowledged=ends[1] % (1 << 32))
        return frame_of(self.packet, macs, content)


@dataclass(slots=True)
class Planner:
    """Makes trials for one firewall."""

    model: Model
    _number: int = 0
    _seen: set[object] = field(default_factory=set)
    _connections: dict[object, Connection | None] = field(default_factory=dict)
    _at: dict[tuple[Family, int], tuple[Connection, bool]] = field(default_factory=dict)
    """By an end's address: a connection, and whether it is the end that began it."""

    def plan(self, witnesses: Iterable[Packet]) -> Iterator[Trial]:
        """Yield a trial for each witness that can be sent, each once."""
        errors = []
        for witness in witnesses:
            packet = self._normal(witness)
            if packet is None or not _arrives(packet):
                continue
            wanted = STATES[packet.number(fields.STATE)]
            if wanted is State.RELATED and is_error(packet):
                errors.append(packet)
            trial = self._established(packet) if wanted is State.ESTABLISHED else None
            yield from self._once(trial or self._plain(packet, wanted))
        for packet in errors:
            yield from self._once(self._related(packet))

    def is_end(self, family: Family, address: int) -> bool:
        """Tell whether a connection that an earlier witness has begun has this end."""
        return (family, address) in self._at

    def _once(self, trial: Trial | None) -> Iterator[Trial]:
        if trial is None or trial.forecast.end == NOWHERE:
            return
        if trial.connection is None or self._first(trial.packet, "connected"):
            yield self._numbered(trial)

    def _first(self, packet: Packet, how: str) -> bool:
        """Tell whether a packet is sent in this way for the first time."""
        key = (frozenset(packet.values.items()), how)
        known = key in self._seen
        self._seen.add(key)
        return not known

    def _numbered(self, trial: Trial) -> Trial:
        self._number += 1
        packet = trial.packet
        content = replace(trial.content, number=self._number)
        begins = trial.connection is None and trial.forecast.end in {FORWARDED, RELAYED}
        if begins and packet[fields.PROTOCOL] in {fields.TCP, fields.UDP}:
            # A port of its own, so that it belongs to no connection that another one has begun.
            own = packet.changed({fields.SPORT: CLIENT_PORT + self._number % _PORTS})
            forecast = self.model.forecast(own)
            if forecast.key == trial.forecast.key:
                return Trial(own, content, forecast)
        shown = _as_sent(packet, content)
        forecast = trial.forecast if shown is packet else self.model.forecast(shown)
        return Trial(shown, content, forecast, trial.connection)

    def _normal(self, witness: Packet) -> Packet | None:
        """Return a witness without what its sender has no say in."""
        if witness[fields.IIF] not in self.model.interfaces:
            return None
        values = {each: witness[each] for each in _SENT[witness.family]}
        if witness.family is Family.IPV4:
            values[fields.HEADER_LENGTH] = max(5, witness.number(fields.HEADER_LENGTH))
        if witness[fields.PROTOCOL] == _GRE:
            values[fields.SPORT] = 0  # version 0, without a checksum (RFC 2784)
        return sent(Packet(witness.family, values))

    def _plain(self, packet: Packet, wanted: State) -> Trial | None:
        """Return a frame that belongs to nothing, None if there was one like it."""
        state = fresh_state(packet)
        spoiled = wanted is State.INVALID and state is State.NEW and packet[fields.PROTOCOL] in _CHECKED
        state = State.INVALID if spoiled else state
        packet = packet.changed({fields.STATE: STATES.index(state), fields.DIRECTION: fields.ORIGINAL})
        if not self._first(packet, "spoiled" if spoiled else "plain"):
            return None
        forecast = self.model.forecast(packet)
        if forecast.end in {FORWARDED, RELAYED} and packet[fields.PROTOCOL] == fields.TCP and state is State.NEW:
            self._remember(packet)
        return Trial(packet, Content(0, spoiled=spoiled), forecast)

    def _remember(self, packet: Packet) -> None:
        connection = self._connection(packet)
        if connection is not None:
            ends = ((fields.SADDR, True), (fields.DADDR, False))
            for each, began in ends:
                self._at.setdefault((packet.family, packet.number(each)), (connection, began))

    def _established(self, packet: Packet) -> Trial | None:
        """Return a segment of a live connection, None if there can be none with these ends."""
        if packet[fields.PROTOCOL] != fields.TCP:
            return None
        back = packet[fields.DIRECTION] == fields.REPLY
        connection = self._connection(swapped(packet) if back else packet)
        if connection is None:
            return None
        client = {(fields.DPORT if back else fields.SPORT): connection.opening[fields.SPORT]}
        packet = segment(packet.changed({**client, fields.TCP_FLAGS: fields.ACK}), data=True)
        return Trial(packet, Content(0), self.model.forecast(packet), connection)

    def _related(self, packet: Packet) -> Trial | None:
        """Return an ICMP error about a live connection of the one that it is sent to, None if there is none."""
        found = self._at.get((packet.family, packet.number(fields.DADDR)))
        if found is None:
            return None
        connection, began = found
        about = connection.opening if began else connection.back()
        quoted = b"\0\0\x05\x14" + quotation(about, SEQUENCE + 1 if began else ANSWER_SEQUENCE + 1)
        packet = packet.changed({fields.DIRECTION: fields.REPLY if began else fields.ORIGINAL})
        return Trial(packet, Content(0, quoted=quoted), self.model.forecast(packet), connection)

    def _connection(self, like: Packet) -> Connection | None:
        """Return the connection that the ruleset lets begin between the ends of a packet, None if it does not."""
        key = (like.family, like[fields.SADDR], like[fields.DADDR], like[fields.DPORT])
        if key not in self._connections:
            self._connections[key] = self._opened(like)
        return self._connections[key]

    def _opened(self, like: Packet) -> Connection | None:
        plain: dict[Field, int | str] = dict.fromkeys(_SENT[like.family], 0)
        ends = {each: like[each] for each in (fields.SADDR, fields.DADDR, fields.DPORT)}
        port = CLIENT_PORT + _PORTS + len(self._connections) % 5000
        usual: dict[Field, int | str] = {
            fields.SPORT: port,
            fields.PROTOCOL: fields.TCP,
            fields.TCP_FLAGS: fields.SYN,
            fields.TTL: 64,
        }
        header: dict[Field, int | str] = (
            {fields.HEADER_LENGTH: 5} if like.family is Family.IPV4 else {fields.NEXT_HEADER: fields.TCP}
        )
        for interface in self.model.interfaces:
            state: dict[Field, int | str] = {fields.STATE: STATES.index(State.NEW), fields.IIF: interface}
            packet = segment(Packet(like.family, {**plain, **ends, **usual, **header, **state}), data=False)
            forecast = self.model.forecast(packet)
            if forecast.end in {FORWARDED, RELAYED}:
                return Connection(packet, forecast)
        return None


_CHECKED = {fields.TCP, fields.UDP, fields.ICMP, fields.ICMPV6}
_COMMON = (
    *(fields.IIF, fields.STATE, fields.DIRECTION, fields.PROTOCOL, fields.SADDR, fields.DADDR),
    *(fields.SPORT, fields.DPORT, fields.TCP_FLAGS, fields.TTL, fields.DSCP, fields.ECN),
    *(fields.LENGTH, fields.DATA_OFFSET, *fields.TCP_OPTIONS.values()),
)
_SENT = {
    Family.IPV4: (*_COMMON, fields.FRAG_OFF, fields.HEADER_LENGTH),
    Family.IPV6: (*_COMMON, fields.NEXT_HEADER, fields.LATER_FRAGMENT, *fields.EXTENSIONS.values()),
}


def swapped(packet: Packet) -> Packet:
    """Return a packet with the ends of the other direction."""
    pairs = ((fields.SADDR, fields.DADDR), (fields.SPORT, fields.DPORT))
    return packet.changed({a: packet[b] for pair in pairs for a, b in (pair, pair[::-1])})


def _as_sent(packet: Packet, content: Content) -> Packet:
    """Return a packet with what only its frame shows: where ports would be, ICMP has its checksum."""
    control = fields.ICMP if packet.family is Family.IPV4 else fields.ICMPV6
    if packet[fields.PROTOCOL] != control:
        return packet
    frame = frame_of(packet, _NO_MACS, content)
    place = _control_at(packet)
    checksum = int.from_bytes(frame[place + 2 : place + 4], "big")
    return packet.changed({fields.DPORT: checksum, fields.LENGTH: len(frame) - _ETHERNET})


def _control_at(packet: Packet) -> int:
    """Return where the ICMP message of a frame begins."""
    if packet.family is Family.IPV4:
        return 14 + 4 * packet.number(fields.HEADER_LENGTH)
    authentication = 16 if packet[fields.NEXT_HEADER] == _AUTHENTICATION else 0
    return 54 + authentication + 8 * sum(packet.number(each) for each in fields.EXTENSIONS.values())


def _arrives(packet: Packet) -> bool:
    """Tell whether the kernel hands such a packet to the first hook, and the model knows how it tracks it."""
    if packet[fields.PROTOCOL] in UNKNOWN:
        return False
    if packet.family is Family.IPV4:
        return True
    announced, protocol = packet.number(fields.NEXT_HEADER), packet.number(fields.PROTOCOL)
    if protocol in _WALKED_OR_NONE or (announced != protocol and announced not in fields.WALKED):
        return False
    source, destination = (IPv6Address(packet.number(each)) for each in (fields.SADDR, fields.DADDR))
    # IPv6 itself drops these (RFC 4291), before any hook.
    if source.is_multicast or source.is_loopback or destination.is_loopback:
        return False
    return not destination.is_multicast or int(destination) >> 112 & 0xF >= _SMALLEST_SCOPE
