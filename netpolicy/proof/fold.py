"""Pieces of a difference as lines that people read: who speaks with whom, on what, at which firewalls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from netpolicy.proof import boxes, fields
from netpolicy.proof.boxes import Header, Shape, Spans, joined
from netpolicy.proof.diff import Change, Piece
from netpolicy.proof.fields import ACK, FIN, RST, STATES, SYN, Family
from netpolicy.proof.model import Span
from netpolicy.proof.names import Names, numbers
from netpolicy.proof.sides import Way

_MOST_PAIRS = 1024
_MOST_NAMES = 8
_SAID = {boxes.IIF, boxes.OIF, boxes.SADDR, boxes.DADDR, boxes.SPORT, boxes.DPORT, boxes.PROTOCOL}
_FLAGS = {"fin": FIN, "syn": SYN, "rst": RST, "psh": 0x08, "ack": ACK, "urg": 0x20, "ece": 0x40, "cwr": 0x80}
_LISTED = {boxes.STATE, boxes.DIRECTION, boxes.FLAGS, boxes.TRANSPARENT}
_EVERYONE = ("everyone",)

Role = tuple[Way, Shape]
Order = Callable[[str, str], Sequence[str]]
"""Returns the firewalls on the way from one name to another, as far as they are known."""


@dataclass(frozen=True, slots=True)
class Place:
    """A firewall, and the interfaces that a connection comes in and goes out by; empty where that is open."""

    firewall: str
    ingress: str
    egress: str

    def __str__(self) -> str:
        if not self.ingress and not self.egress:
            return self.firewall
        return f"{self.firewall} ({self.ingress or 'any'} → {self.egress or 'any'})"


@dataclass(frozen=True, slots=True)
class At:
    """At which firewalls, and what of a connection each of them passes."""

    how: str
    """Empty for single packets that are forwarded."""
    places: tuple[Place, ...]

    def __str__(self) -> str:
        return f"{self.how}{', ' if self.how else ''}at {', '.join(map(str, self.places))}"


@dataclass(frozen=True, slots=True)
class Line:
    """What has changed for some clients and servers."""

    change: Change
    flow: str | None
    clients: tuple[str, ...]
    servers: tuple[str, ...]
    service: str
    conditions: tuple[str, ...]
    """What else a packet must be."""
    at: tuple[At, ...]

    def __str__(self) -> str:
        ends = f"{some(self.clients)} → {some(self.servers)}"
        return "  ".join([ends, ", ".join((self.service, *self.conditions))])


def some(ends: Sequence[str], mark: str = ", ") -> str:
    """Return so many of them as a line holds, and how many there are."""
    few = len(ends) <= _MOST_NAMES
    return mark.join(ends) if few else f"{mark.join(ends[:_MOST_NAMES])} and {len(ends) - _MOST_NAMES} more"


@dataclass(frozen=True, slots=True)
class _Key:
    change: Change
    flow: str | None
    client: tuple[str, ...]
    server: tuple[str, ...]
    service: str
    conditions: tuple[str, ...]


@dataclass(slots=True)
class _Seen:
    """What one firewall passes of one key."""

    roles: dict[Family, set[Role]] = field(default_factory=dict)
    ingress: set[str] = field(default_factory=set)
    egress: set[str] = field(default_factory=set)


def lines(pieces: Iterable[Piece], names: Mapping[Change, Names], order: Order) -> list[Line]:
    """Return pieces as lines: both families, both directions and all firewalls of a connection in one.

    Args:
        pieces: Of one difference.
        names: Of the side that permits.
        order: Puts firewalls in the order of the way.

    """
    found: dict[_Key, dict[str, _Seen]] = {}
    for piece in pieces:
        for key in _keys(piece, names[piece.change]):
            _see(found.setdefault(key, {}).setdefault(piece.firewall, _Seen()), piece)
    whole = [_line(key, seen, order) for key, seen in found.items()]
    by_server = _together(whole, lambda line: (line.servers, *_rest(line)))
    merged = [_joined(several, clients=True) for several in by_server]
    by_client = _together(merged, lambda line: (line.clients, *_rest(line)))
    return [_joined(several, clients=False) for several in by_client]


def _keys(piece: Piece, names: Names) -> Iterator[_Key]:
    box = piece.box
    answer = box.frame.shape is Shape.ANSWER
    source, destination = (
        _EVERYONE if spans is None else names.addresses(spans, piece.family)
        for spans in (box.side(boxes.SADDR), box.side(boxes.DADDR))
    )
    clients, servers = (destination, source) if answer else (source, destination)
    service, conditions = _service(piece, names), tuple(_conditions(piece, names))
    if len(clients) * len(servers) > _MOST_PAIRS:
        yield _Key(piece.change, piece.flow, clients, servers, service, conditions)
        return
    for client in clients:
        for server in servers:
            yield _Key(piece.change, piece.flow, (client,), (server,), service, conditions)


def _service(piece: Piece, names: Names) -> str:
    box = piece.box
    sport, dport, protocol = box.side(boxes.SPORT), box.side(boxes.DPORT), box.side(boxes.PROTOCOL)
    if box.frame.shape is not Shape.ANY:
        protocol = protocol or (Span(fields.TCP, fields.TCP),)
    if box.frame.shape is Shape.ANSWER or _is_control(protocol):
        return names.service(protocol, sport)
    return names.service(protocol, dport)


def _conditions(piece: Piece, names: Names) -> Iterator[str]:
    box = piece.box
    answer = box.frame.shape is Shape.ANSWER
    other = box.side(boxes.DPORT if answer or _is_control(box.side(boxes.PROTOCOL)) else boxes.SPORT)
    if other is not None:
        yield f"client's port {numbers(other)}"
    for dimension, spans in box.sides:
        if dimension not in _SAID:
            yield _condition(dimension, spans, names)
    if box.frame.header is Header.EVERY and not box.sides:
        yield "whatever its header"


def _condition(dimension: boxes.Dimension, spans: Spans, names: Names) -> str:
    values = [number for span in spans for number in range(span.first, span.last + 1)] if dimension in _LISTED else []
    if dimension in {boxes.WHEN, boxes.TIME}:
        return names.hours(spans) if dimension is boxes.WHEN else names.moments(spans)
    told = {
        boxes.STATE: f"state {' or '.join(STATES[number].name.lower() for number in values)}"
        if dimension is boxes.STATE
        else "",
        boxes.DIRECTION: "of the client" if values == [fields.ORIGINAL] else "of the server",
        boxes.FLAGS: f"flags {_flags(values)}" if dimension is boxes.FLAGS else "",
        boxes.TRANSPARENT: f"to {'a' if values == [1] else 'no'} transparent socket",
    }
    return told.get(dimension, f"{dimension.name} {numbers(spans)}")


def _is_control(protocol: Spans | None) -> bool:
    return protocol is not None and all(
        span.first == span.last and span.first in {fields.ICMP, fields.ICMPV6} for span in protocol
    )


def _flags(values: list[int]) -> str:
    """Return flags that are set and not set, if they are all of it, else the numbers."""
    alike = 0xFF
    for value in values:
        alike &= ~(value ^ values[0])
    if len(values) != 1 << (8 - alike.bit_count()):
        return numbers(joined(Span(value, value) for value in values))
    told = [name if values[0] & bit else f"not {name}" for name, bit in _FLAGS.items() if alike & bit]
    return " ".join(told)


def _see(seen: _Seen, piece: Piece) -> None:
    box, way = piece.box, piece.way
    seen.roles.setdefault(piece.family, set()).add((way, box.frame.shape))
    ingress, egress = (
        ""
        if spans is None
        else "/".join(piece.interfaces[number] for span in spans for number in range(span.first, span.last + 1))
        for spans in (box.side(boxes.IIF), box.side(boxes.OIF))
    )
    if box.frame.shape is Shape.ANSWER:
        ingress, egress = egress, ingress
    seen.ingress |= {ingress} - {""}
    seen.egress |= {egress} - {""}


def _line(key: _Key, seen: Mapping[str, _Seen], order: Order) -> Line:
    way = order(key.client[0], key.server[0])
    ordered = sorted(seen, key=lambda firewall: way.index(firewall) if firewall in way else len(way))
    by_how: dict[str, list[Place]] = {}
    for firewall in ordered:
        each = seen[firewall]
        place = Place(firewall, "/".join(sorted(each.ingress)), "/".join(sorted(each.egress)))
        by_how.setdefault(_how(each.roles), []).append(place)
    at = tuple(At(how, tuple(places)) for how, places in by_how.items())
    return Line(key.change, key.flow, key.client, key.server, key.service, key.conditions, at)


def _how(roles: Mapping[Family, set[Role]]) -> str:
    """Return what of a connection a firewall passes."""
    by_text: dict[str, list[Family]] = {}
    for family, several in roles.items():
        by_text.setdefault(_roles(several), []).append(family)
    parts = []
    for text, families in by_text.items():
        only = f"IPv{families[0].version} only" if len(families) == 1 else ""
        parts.append(", ".join(filter(None, (text, only))))
    return "; ".join(filter(None, parts))


def _roles(roles: set[Role]) -> str:
    whole = {
        frozenset({(Way.FORWARDED, Shape.OPENING), (Way.FORWARDED, Shape.ANSWER)}): "with answers",
        frozenset(
            {(Way.DIVERTED, Shape.OPENING), (Way.SENT, Shape.OPENING), (Way.SENT, Shape.ANSWER)}
        ): "through the relay, with answers",
        frozenset({(Way.DELIVERED, Shape.OPENING), (Way.SENT, Shape.ANSWER)}): "to the firewall itself, with answers",
    }
    if frozenset(roles) in whole:
        return whole[frozenset(roles)]
    words = {Shape.OPENING: "without answers", Shape.ANSWER: "answers only", Shape.ANY: ""}
    ways = {Way.FORWARDED: "", Way.DIVERTED: "to the relay", Way.DELIVERED: "to the firewall itself", Way.SENT: "sent"}
    parts: dict[str, None] = {}
    for way in Way:
        shapes = {shape for each, shape in roles if each is way}
        if shapes:
            both = {Shape.OPENING, Shape.ANSWER} <= shapes
            said = ["with answers"] if both else [words[shape] for shape in Shape if shape in shapes]
            parts[" ".join(filter(None, (ways[way], *said)))] = None
    return ", ".join(filter(None, parts))


def _rest(line: Line) -> tuple[object, ...]:
    return line.change, line.flow, line.service, line.conditions, line.at


def _together(whole: Iterable[Line], key: Callable[[Line], object]) -> list[list[Line]]:
    found: dict[object, list[Line]] = {}
    for line in whole:
        found.setdefault(key(line), []).append(line)
    return list(found.values())


def _joined(several: Sequence[Line], *, clients: bool) -> Line:
    first = several[0]
    ends = tuple(dict.fromkeys(end for line in several for end in (line.clients if clients else line.servers)))
    return Line(
        first.change,
        first.flow,
        ends if clients else first.clients,
        first.servers if clients else ends,
        first.service,
        first.conditions,
        first.at,
    )
