"""Sets of packets against z3, and against counting on small fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

import pytest
import z3

from netpolicy.proof import fields
from netpolicy.proof.evaluate import Packet
from netpolicy.proof.fields import FIELDS, STATES, Family, Field, State
from netpolicy.proof.model import Name, Span
from netpolicy.proof.packetset import PacketSet, Space
from tests.proof.z3_exact import solved
from tests.proof.z3_judged import Diagrams, Unknowns
from tests.proof.z3_packet import Symbols, both, either

SMALL = (fields.ECN, fields.PACKET_TYPE, fields.DAY)
"""2, 3 and 3 bits: 256 packets that differ in nothing else."""
NAMES = ("lan", "wan*", "lo")


@pytest.fixture(name="space", params=list(Family), ids=lambda family: family.name)
def _space(request: pytest.FixtureRequest) -> Space:
    return Space.over(request.param, NAMES)


def _packets(space: Space) -> list[Packet]:
    """Return every packet that the small fields can tell apart."""
    found = [Packet(space.family)]
    for each in SMALL:
        found = [packet.changed({each: value}) for packet in found for value in range(1 << each.bits)]
    return found


def _within(space: Space, some: PacketSet) -> set[tuple[int, ...]]:
    return {
        tuple(packet.number(each) for each in SMALL)
        for packet in _packets(space)
        if (space.of(packet) & some).satisfiable()
    }


def _random_set(space: Space, random: Random) -> tuple[PacketSet, Callable[[Mapping[Field, int]], bool]]:
    """Return a union of boxes, and a way to tell what is in it."""
    boxes = []
    for _ in range(random.randint(1, 4)):
        box = {}
        for each in SMALL:
            first, last = sorted(random.randrange(1 << each.bits) for _ in range(2))
            box[each] = Span(first, last)
        boxes.append(box)
    sets = []
    for box in boxes:
        some = space.true
        for each, span in box.items():
            some &= space.among(space.bits(each), span)
        sets.append(some)
    return space.union(sets), lambda values: any(all(values[each] in box[each] for each in SMALL) for box in boxes)


@pytest.mark.parametrize("seed", range(5))
def test_small_fields(space: Space, seed: int) -> None:
    """Unions, and what is left when a field is forgotten, are what counting says; so are sizes."""
    random = Random(seed)  # noqa: S311 - the same every time
    (one, in_one), (other, in_other) = _random_set(space, random), _random_set(space, random)
    every = [{each: packet.number(each) for each in SMALL} for packet in _packets(space)]
    forgotten = random.choice(SMALL)

    def held(test: Callable[[Mapping[Field, int]], bool]) -> set[tuple[int, ...]]:
        return {tuple(values.values()) for values in every if test(values)}

    def somewhere(values: Mapping[Field, int]) -> bool:
        return any(in_one({**values, forgotten: value}) for value in range(1 << forgotten.bits))

    assert _within(space, one) == held(in_one)
    assert _within(space, space.union([one, other])) == held(lambda each: in_one(each) or in_other(each))
    assert _within(space, one & ~other) == held(lambda each: in_one(each) and not in_other(each))
    assert _within(space, space.without(one, [forgotten])) == held(somewhere)
    rest = space.count(space.true) // len(every)
    assert space.count(one) == rest * len(held(in_one))


@pytest.mark.parametrize(
    ("bits", "first", "last"),
    [(3, 0, 7), (3, 2, 2), (3, 5, 3), (3, 6, 9), (3, 8, 9), (3, -2, 1), (3, 0, -1), (1, 1, 1)],
)
def test_spans_beyond_a_field(bits: int, first: int, last: int) -> None:
    """A span may be empty, or begin or end outside of what a field can hold."""
    space = Space.over(Family.IPV4, ())
    some = space.among(space.bits(fields.DAY)[-bits:], Span(first, last))
    held = {
        value for value in range(1 << bits) if (space.of(Packet(Family.IPV4, {fields.DAY: value})) & some).satisfiable()
    }
    assert held == {value for value in range(1 << bits) if first <= value <= last}


@pytest.mark.parametrize("seed", range(3))
def test_fields_against_z3(space: Space, seed: int) -> None:
    """Spans, masks, names and states of every field are the formulas that they stand for."""
    random = Random(seed)  # noqa: S311 - the same every time
    packet, unknowns = Symbols(space.family, space.names), Unknowns("host")
    diagrams = Diagrams(space, packet, unknowns)
    for each in FIELDS:
        if each.family not in {None, space.family}:
            continue
        top = (1 << packet.width(each)) - 1
        first, last = sorted(random.randint(0, top) for _ in range(2))
        mask, value = random.randint(0, top), random.randint(0, top)
        pairs = [
            (
                space.among(space.bits(each), Span(first, last)),
                both(z3.UGE(packet[each], first), z3.ULE(packet[each], last)),
            ),
            (space.where(each, first), packet[each] == first),
            (space.having(each, mask, value), packet[each] & mask == value & mask),
        ]
        for diagram, formula in pairs:
            assert solved(z3.Xor(diagrams.formula(diagram), formula)) is None, each
    several = random.sample(list(State), k=2)
    named = [code for code, name in enumerate(space.names) if name.startswith("wan")]
    for diagram, formula in (
        (space.valid, packet.valid()),
        (space.fragments(), packet.fragment()),
        (space.held(), packet.kept()),
        (space.later_fragments(), packet.later_fragment()),
        (space.in_state(*several), packet.equals(fields.STATE, *(STATES.index(state) for state in several))),
        (space.named(space.bits(fields.OIF), Name("wan*")), packet.equals(fields.OIF, *named)),
        (space.interface(fields.IIF, ("lan",)), packet.at(fields.IIF, "lan")),
    ):
        assert solved(z3.Xor(diagrams.formula(diagram), formula)) is None


def test_unknown_against_z3(space: Space) -> None:
    """What is surely and what is possibly in a set is so for all, and for some, of what is unknown."""
    packet, unknowns = Symbols(space.family, space.names), Unknowns("host")
    one, other = space.unknown("one"), space.unknown("other")
    tcp, syn = space.where(fields.PROTOCOL, fields.TCP), space.having(fields.TCP_FLAGS, 2, 2)
    some = tcp & one | syn & ~one & other | space.where(fields.TTL, 1)
    diagrams = Diagrams(space, packet, unknowns)
    formula = diagrams.formula(some)
    bits = [unknowns.of("one"), unknowns.of("other")]
    every = [
        z3.substitute(formula, (bits[0], z3.BoolVal(first)), (bits[1], z3.BoolVal(second)))
        for first in (True, False)
        for second in (True, False)
    ]
    assert solved(z3.Xor(diagrams.formula(space.surely(some)), both(*every))) is None
    assert solved(z3.Xor(diagrams.formula(space.possibly(some)), either(every))) is None
    assert set(space.depends_on(some)) == {"one", "other"}


@pytest.mark.parametrize("seed", range(10))
def test_picked_is_inside(space: Space, seed: int) -> None:
    """A packet that is picked of a set is valid and in it, with what is unknown; and of() holds that packet alone."""
    random = Random(seed)  # noqa: S311 - the same every time
    chance = space.unknown("chance")
    some = space.valid & (chance | space.where(fields.TTL, 9))
    for _ in range(4):
        each = random.choice([one for one in FIELDS if one.family in {None, space.family}])
        bit = random.randrange(space.width(each))
        cut = some & space.having(each, 1 << bit, random.randrange(2) << bit)
        some = cut if cut.satisfiable() else some
    picked = space.pick(some)
    assert picked is not None
    one = space.of(picked.packet)
    assert (one & some & (chance if picked.unknown["chance"] else ~chance)).satisfiable()
    assert space.count(one) == 1 << 1
    assert space.pick(some & ~some) is None
    assert space.pick(~space.valid) is None
