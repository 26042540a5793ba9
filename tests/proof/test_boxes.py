"""Boxes are disjoint, and together they are the set that was cut."""

from __future__ import annotations

import random

import pytest

from netpolicy.proof import boxes, fields
from netpolicy.proof.boxes import Cutter, Header, Shape, TooFineError, joined, within
from netpolicy.proof.fields import Family, Field
from netpolicy.proof.model import Span
from netpolicy.proof.names import subtracted
from netpolicy.proof.packetset import PacketSet, Space

_ASKED = (
    *(fields.IIF, fields.OIF, fields.STATE, fields.DIRECTION, fields.PROTOCOL, fields.DPORT, fields.DADDR),
    *(fields.SADDR, fields.SPORT, fields.TCP_FLAGS, fields.TTL, fields.DAY, fields.HOUR, fields.TIME),
)


def _space(family: Family) -> Space:
    return Space.over(family, ("lan", "wan"))


def _fresh(space: Space) -> PacketSet:
    marks = (space.where(each, 0) for each in (fields.MARK, fields.ZONE, fields.CT_MARK))
    found = space.valid
    for each in marks:
        found &= each
    return found


def _some(space: Space, chance: random.Random) -> PacketSet:
    """Return the union of a few products of random intervals of random fields."""
    found = space.false
    for _ in range(chance.randint(1, 4)):
        part = space.true
        for asked in chance.sample(_ASKED, chance.randint(1, 5)):
            part &= _interval(space, asked, chance)
        found |= part if chance.random() < 0.8 else ~part
    return found & _fresh(space)


def _interval(space: Space, asked: Field, chance: random.Random) -> PacketSet:
    top = (1 << space.width(asked)) - 1
    first, last = sorted((chance.randint(0, top), chance.randint(0, top)))
    return space.where(asked, first, first if chance.random() < 0.4 else last)


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("seed", range(15))
def test_exact_and_disjoint(family: Family, seed: int) -> None:
    """Whatever the set: its boxes do not overlap, and their union is the set."""
    space = _space(family)
    cutter = Cutter(space)
    packets = _some(space, random.Random(seed))  # noqa: S311 - the same sets each time
    union = space.false
    for box in cutter.cut(packets):
        mine = cutter.packets(box)
        assert mine.satisfiable()
        assert not (union & mine).satisfiable()
        union |= mine
    assert union == packets


@pytest.mark.parametrize("family", list(Family))
def test_connection_is_two_boxes(family: Family) -> None:
    """What a client says is one box and what answers it another, with nothing in them but ends and port."""
    space = _space(family)
    cutter = Cutter(space)
    shapes = {}
    for shape, port in ((Shape.OPENING, fields.DPORT), (Shape.ANSWER, fields.SPORT)):
        frame = boxes.Frame(shape, Header.ORDINARY)
        (box,) = cutter.cut(cutter.frame(frame) & space.where(port, 17001) & space.where(fields.SADDR, 7))
        shapes[shape] = box
        assert box.frame == frame
    assert shapes[Shape.OPENING].side(boxes.DPORT) == (Span(17001, 17001),)
    assert shapes[Shape.ANSWER].side(boxes.SPORT) == (Span(17001, 17001),)
    assert all(len(box.sides) <= 3 for box in shapes.values())


def test_hours_are_one_interval() -> None:
    """Service hours over midnight are one interval of the week, not two days with an hour each."""
    space = _space(Family.IPV4)
    late = space.where(fields.DAY, 1) & space.where(fields.HOUR, 80000, 86399)
    early = space.where(fields.DAY, 2) & space.where(fields.HOUR, 0, 5000)
    found = Cutter(space).cut(_fresh(space) & (late | early))
    assert {box.side(boxes.WHEN) for box in found} == {(Span(86400 + 80000, 2 * 86400 + 5000),)}


def test_nothing_is_no_box() -> None:
    """The empty set has no box."""
    space = _space(Family.IPV4)
    assert Cutter(space).cut(space.false) == []


def test_too_fine_is_refused() -> None:
    """Every second address of a large network is refused, not told in millions of lines."""
    space = _space(Family.IPV4)
    with pytest.raises(TooFineError, match="intervals"):
        Cutter(space).cut(_fresh(space) & space.having(fields.SADDR, 1, 1))


def test_spans() -> None:
    """Numbers as spans: joined, cut and taken away."""
    spans = joined([Span(5, 9), Span(1, 3), Span(4, 4), Span(20, 30)])
    assert spans == (Span(1, 9), Span(20, 30))
    assert within(spans, (Span(8, 21),)) == (Span(8, 9), Span(20, 21))
    assert subtracted(spans, (Span(3, 25),)) == (Span(1, 2), Span(26, 30))
