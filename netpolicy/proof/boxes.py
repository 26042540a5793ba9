"""A set of packets as a few products of intervals that people can read; together they are the set, exactly.

Most differences between firewalls are connections.  So a set is cut in turn into what begins and continues
connections, what answers them, and the rest, over packets with any header first, then over those with an ordinary
one: what a box says is meant within its frame, which :meth:`Cutter.frame` gives.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from netpolicy.proof import fields
from netpolicy.proof.fields import ACK, FIELDS, FIN, ORIGINAL, REPLY, RST, STATES, SYN, WALKED, Family, Field, State
from netpolicy.proof.model import Span
from netpolicy.proof.packetset import PacketSet, Space

Spans = tuple[Span, ...]
"""Sorted, disjoint, not adjacent."""

_DAY = 24 * 60 * 60
_MOST_SPANS = 1 << 16


class Shape(enum.StrEnum):
    """What part packets have in a connection."""

    OPENING = "opening"
    """What the client of a TCP connection says: SYN alone, then whatever belongs to the connection."""
    ANSWER = "answer"
    """What the server says."""
    ANY = "any"


class Header(enum.Enum):
    """What kind of header packets have, and whether a box says more about it."""

    WHOLE = enum.auto()
    """Any, of packets that are no fragments."""
    ORDINARY = enum.auto()
    """Without options and extension headers, not at the end of its life, and without data if it has SYN or RST."""
    WHOLE_LIFE = enum.auto()
    """As WHOLE, but boxes may ask for the time to live."""
    PLAIN_LIFE = enum.auto()
    """As ORDINARY, but boxes may ask for the time to live."""
    EVERY = enum.auto()
    """Any; boxes may ask for everything."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Within which packets a box is meant."""

    shape: Shape
    header: Header


FRAMES = tuple(Frame(shape, header) for header in Header for shape in Shape)
"""In the order in which a set is cut."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """A field of a box, or several that are read as one number."""

    name: str
    parts: tuple[Field, ...]


WHEN = Dimension("when", (fields.DAY, fields.HOUR))
"""Seconds of the week, from Sunday on, in UTC."""
_SINGLE = tuple(Dimension(each.name, (each,)) for each in FIELDS if each not in WHEN.parts)
_BY_FIELD = {dimension.parts[0]: dimension for dimension in _SINGLE}
IIF, OIF, SADDR, DADDR = (_BY_FIELD[each] for each in (fields.IIF, fields.OIF, fields.SADDR, fields.DADDR))
SPORT, DPORT, PROTOCOL = (_BY_FIELD[each] for each in (fields.SPORT, fields.DPORT, fields.PROTOCOL))
STATE, DIRECTION, FLAGS = (_BY_FIELD[each] for each in (fields.STATE, fields.DIRECTION, fields.TCP_FLAGS))
TIME, TRANSPARENT = _BY_FIELD[fields.TIME], _BY_FIELD[fields.TRANSPARENT]
DIMENSIONS = tuple(WHEN if each is fields.DAY else _BY_FIELD[each] for each in FIELDS if each is not fields.HOUR)
"""In the order of the diagrams' variables."""

_MARKS = (fields.MARK, fields.ZONE, fields.CT_MARK)
_HEADER = (
    *(fields.FRAG_OFF, fields.HEADER_LENGTH, fields.NEXT_HEADER, fields.LATER_FRAGMENT),
    *(fields.MORE_FRAGMENTS, fields.ODD_FRAGMENT),
    *fields.EXTENSIONS.values(),
)
_TWINS = {fields.PROTOCOL, fields.NEXT_HEADER}
_SEGMENT = (fields.LENGTH, fields.DATA_OFFSET, *fields.TCP_OPTIONS.values())
_TALK = (fields.STATE, fields.DIRECTION, fields.TCP_FLAGS)


@dataclass(frozen=True, slots=True)
class Box:
    """A product of intervals within a frame."""

    frame: Frame
    sides: tuple[tuple[Dimension, Spans], ...]
    """Those that are not free, in order."""

    def side(self, dimension: Dimension) -> Spans | None:
        """Return the values of a dimension; None if it is free."""
        return next((spans for each, spans in self.sides if each is dimension), None)


class TooFineError(ValueError):
    """A set has a part that is no few intervals of a field: bits under a mask, somewhere in the middle."""


def joined(spans: Iterable[Span]) -> Spans:
    """Return the same numbers as fewest spans, in order."""
    found: list[Span] = []
    for span in sorted(spans, key=lambda each: each.first):
        if found and span.first <= found[-1].last + 1:
            found[-1] = Span(found[-1].first, max(found[-1].last, span.last))
        else:
            found.append(span)
    return tuple(found)


def within(spans: Spans, bounds: Spans) -> Spans:
    """Return the numbers that are in both."""
    parts = ((max(a.first, b.first), min(a.last, b.last)) for a in spans for b in bounds)
    return joined(Span(first, last) for first, last in parts if first <= last)


@dataclass(slots=True)
class Cutter:
    """Cuts sets of one space."""

    space: Space
    _frames: dict[Frame, tuple[PacketSet, PacketSet]] = field(init=False, default_factory=dict)
    _owners: dict[int, Dimension] = field(init=False, default_factory=dict)
    _domains: dict[Dimension, Spans] = field(init=False, default_factory=dict)
    _known: dict[PacketSet, tuple[tuple[tuple[Dimension, Spans], ...], ...]] = field(init=False, default_factory=dict)

    def frame(self, frame: Frame) -> PacketSet:
        """Return the packets of a frame."""
        return self._framed(frame)[0]

    def cut(self, packets: PacketSet) -> list[Box]:
        """Return disjoint boxes that make up a set of packets without marks.

        Raises:
            TooFineError: It would take more than 65,536 intervals of one field.

        """
        rest, found = packets, []
        for frame in FRAMES:
            if not rest.satisfiable():
                break
            inside, gone = self._framed(frame)
            # Whatever is left open by a box must be in the set for each packet of the frame.
            ends = (~inside | rest).forall(gone) & inside.exists(gone)
            found += _merged([Box(frame, sides) for sides in self._sides(ends)])
            rest &= ~(ends & inside)
        if rest.satisfiable():
            raise AssertionError("the last frame holds all that the others do not")
        return found

    def packets(self, box: Box) -> PacketSet:
        """Return the packets of a box."""
        found = self.frame(box.frame)
        for dimension, spans in box.sides:
            found &= self.space.union([self._where(dimension, span) for span in spans])
        return found

    def _where(self, dimension: Dimension, span: Span) -> PacketSet:
        space = self.space
        if dimension is not WHEN:
            return space.where(dimension.parts[0], span.first, span.last)
        days = range(span.first // _DAY, span.last // _DAY + 1)
        return space.union(
            [
                space.where(fields.DAY, day)
                & space.where(fields.HOUR, max(span.first - day * _DAY, 0), min(span.last - day * _DAY, _DAY - 1))
                for day in days
            ]
        )

    def _framed(self, frame: Frame) -> tuple[PacketSet, PacketSet]:
        """Return a frame's packets, and the variables that its boxes say nothing about, as a cube."""
        if frame not in self._frames:
            space = self.space
            found = space.valid
            for each in _MARKS:
                found &= space.where(each, 0)
            gone = list(_MARKS)
            found &= self._headed(frame.header)
            if frame.header is not Header.EVERY:
                gone += [each for each in (*_HEADER, *_SEGMENT) if each.family in {None, space.family}]
            if frame.header in {Header.WHOLE, Header.ORDINARY}:
                gone.append(fields.TTL)
            if frame.shape is not Shape.ANY:
                found &= self._talk(frame.shape)
                gone += _TALK
            cube = space.true
            for each in gone:
                for bit in space.bits(each):
                    cube &= bit
            self._frames[frame] = found, cube
        return self._frames[frame]

    def _headed(self, header: Header) -> PacketSet:
        space = self.space
        if header is Header.EVERY:
            return space.true
        found = ~space.fragments()
        if header is Header.ORDINARY:
            found &= space.where(fields.TTL, 2, 255)
        if header in {Header.WHOLE, Header.WHOLE_LIFE}:
            return found
        found &= space.having(fields.TCP_FLAGS, SYN | RST, 0) | space.bare()
        if space.family is Family.IPV4:
            return found & space.where(fields.HEADER_LENGTH, 5)
        return found & ~space.union([space.where(fields.NEXT_HEADER, number) for number in WALKED])

    def _talk(self, shape: Shape) -> PacketSet:
        space = self.space
        tcp = space.where(fields.PROTOCOL, fields.TCP)
        if shape is Shape.ANSWER:
            return tcp & space.in_state(State.ESTABLISHED) & space.where(fields.DIRECTION, REPLY)
        syn = space.having(fields.TCP_FLAGS, FIN | SYN | RST | ACK, SYN)
        known = space.in_state(State.NEW) & syn | space.in_state(State.ESTABLISHED)
        return tcp & known & space.where(fields.DIRECTION, ORIGINAL)

    def _sides(self, ends: PacketSet) -> tuple[tuple[tuple[Dimension, Spans], ...], ...]:
        """Return the sides of boxes that make up a set, which asks for nothing that its frame leaves out."""
        known = self._known.get(ends)
        if known is None:
            top = ends.node_var()
            all_or_none = ((),) if ends.satisfiable() else ()
            known = all_or_none if top is None else tuple(self._split(ends, self._at(top)))
            self._known[ends] = known
        return known

    def _split(self, ends: PacketSet, dimension: Dimension) -> Iterator[tuple[tuple[Dimension, Spans], ...]]:
        domain = self.domain(dimension)
        by_rest: dict[PacketSet, list[Span]] = {}
        for first, last, rest in self._ranges(ends, dimension):
            by_rest.setdefault(rest, []).append(Span(first, last))
        for rest, values in by_rest.items():
            spans = joined(_weekly(values)) if dimension is WHEN else joined(values)
            spans = within(spans, domain)
            if not spans:
                continue
            side = () if spans == domain else ((dimension, spans),)
            for others in self._sides(rest):
                yield (*side, *others)

    def domain(self, dimension: Dimension) -> Spans:
        """Return the values of a dimension that there are."""
        if dimension not in self._domains:
            self._domains[dimension] = self._domain(dimension)
        return self._domains[dimension]

    def _domain(self, dimension: Dimension) -> Spans:
        part = dimension.parts[0]
        if dimension is WHEN:
            return (Span(0, 7 * _DAY - 1),)
        if dimension in {IIF, OIF}:
            return (Span(0, len(self.space.names) - 1),)
        if dimension is STATE:
            return (Span(0, len(STATES) - 1),)
        if dimension is PROTOCOL:
            foreign = {fields.ICMPV6} if self.space.family is Family.IPV4 else {fields.ICMP, *WALKED}
            return joined(Span(number, number) for number in range(256) if number not in foreign)
        bounds = {fields.PACKET_TYPE: (0, 3), fields.HEADER_LENGTH: (5, 15)}
        first, last = bounds.get(part, (0, (1 << self.space.width(part)) - 1))
        return (Span(first, last),)

    def _ranges(self, ends: PacketSet, dimension: Dimension) -> Iterator[tuple[int, int, PacketSet]]:
        """Yield for which values of a dimension what is left of a set."""
        if dimension.parts[0] not in _TWINS or self.space.family is Family.IPV4:
            yield from _ranges(ends, self._end(dimension), self._width(dimension))
            return
        # The variables of these two fields alternate.
        cube = self.space.true
        for bit in self.space.bits(dimension.parts[0]):
            cube &= bit
        for value in range(1 << self._width(dimension)):
            rest = (ends & self.space.where(dimension.parts[0], value)).exists(cube)
            if rest.satisfiable():
                yield value, value, rest

    def _at(self, variable: int) -> Dimension:
        if not self._owners:
            for dimension in DIMENSIONS:
                for part in dimension.parts:
                    if part.family in {None, self.space.family}:
                        self._owners.update(dict.fromkeys(map(_number, self.space.bits(part)), dimension))
        return self._owners[variable]

    def _end(self, dimension: Dimension) -> int:
        """Return the number of the variable after those of a dimension."""
        return _number(self.space.bits(dimension.parts[-1])[-1]) + 1

    def _width(self, dimension: Dimension) -> int:
        return sum(self.space.width(each) for each in dimension.parts)


def _number(bit: PacketSet) -> int:
    number = bit.node_var()
    assert number is not None  # noqa: S101 - it is a variable
    return number


def _ranges(packets: PacketSet, end: int, bits: int) -> list[tuple[int, int, PacketSet]]:
    """Return for which numbers, of so many bits before variable `end`, what is left of a set; nothing is left out."""
    known: dict[tuple[PacketSet, int], list[tuple[int, int, PacketSet]]] = {}

    def ranges(part: PacketSet, left: int) -> list[tuple[int, int, PacketSet]]:
        top = part.node_var()
        if top is None or top >= end:
            return [(0, (1 << left) - 1, part)] if part.satisfiable() else []
        found = known.get((part, left))
        if found is None:
            high, low = (part, part) if top > end - left else _cofactors(part)
            half = 1 << (left - 1)
            found = list(ranges(low, left - 1))
            for first, last, rest in ranges(high, left - 1):
                if found and found[-1][1] + 1 == first + half and found[-1][2] == rest:
                    found[-1] = (found[-1][0], last + half, rest)
                else:
                    found.append((first + half, last + half, rest))
            if len(found) > _MOST_SPANS:
                raise TooFineError(f"more than {_MOST_SPANS} intervals")
            known[part, left] = found
        return found

    return ranges(packets, bits)


def _cofactors(packets: PacketSet) -> tuple[PacketSet, PacketSet]:
    found = packets.cofactors()
    assert found is not None  # noqa: S101 - it has a variable
    return found


def _weekly(spans: Iterable[Span]) -> Iterator[Span]:
    """Yield days and seconds as seconds of the week."""
    hour = fields.HOUR.bits
    for span in spans:
        for day in range(span.first >> hour, (span.last >> hour) + 1):
            first = max(span.first - (day << hour), 0)
            last = min(span.last - (day << hour), _DAY - 1)
            if first <= last:
                yield Span(day * _DAY + first, day * _DAY + last)


def _merged(boxes: list[Box]) -> list[Box]:
    """Return fewer boxes for the same packets: two that differ on one side are one."""
    changed = True
    while changed:
        changed = False
        for dimension in DIMENSIONS:
            alike: dict[tuple[Frame, tuple[tuple[Dimension, Spans], ...]], list[Spans]] = {}
            others: list[Box] = []
            for box in boxes:
                spans = box.side(dimension)
                if spans is None:
                    others.append(box)
                    continue
                rest = tuple(side for side in box.sides if side[0] is not dimension)
                alike.setdefault((box.frame, rest), []).append(spans)
            if len(alike) + len(others) == len(boxes):
                continue
            changed = True
            boxes = [*others, *(_with(frame, rest, dimension, several) for (frame, rest), several in alike.items())]
    return boxes


def _with(frame: Frame, rest: tuple[tuple[Dimension, Spans], ...], dimension: Dimension, several: list[Spans]) -> Box:
    sides = (*rest, (dimension, joined(span for spans in several for span in spans)))
    return Box(frame, tuple(sorted(sides, key=lambda side: DIMENSIONS.index(side[0]))))
