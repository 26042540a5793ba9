"""Packets by what was written on their way, and what is noted of them at each rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from netpolicy.proof.fields import Field
from netpolicy.proof.model import Base, ChainId
from netpolicy.proof.packetset import PacketSet, Space


@dataclass(frozen=True, slots=True)
class Written:
    """What rules have written on the way: of some fields, the bits that are still the packet's own, and the others."""

    fields: tuple[tuple[Field, int, int], ...] = ()
    diverted: int | None = None
    """The port of the local socket that the packet was handed to."""
    hopped: bool = False
    """Whether the kernel has counted its hop: then the hop limit (TTL) is one less than it was."""

    def of(self, wanted: Field) -> tuple[int, int] | None:
        """Return which bits of a field are the packet's own, and the value of the others."""
        return next(((keep, value) for each, keep, value in self.fields if each is wanted), None)

    def with_field(self, changed: Field, keep: int, value: int) -> Written:
        """Return it with one field more."""
        old_keep, old = self.of(changed) or ((1 << changed.bits) - 1, 0)
        rest = [each for each in self.fields if each[0] is not changed]
        new = sorted([*rest, (changed, old_keep & keep, old & keep | value)], key=lambda each: each[0].name)
        return Written(tuple(new), self.diverted, self.hopped)


Sets = dict[Written, PacketSet]
"""Packets by what was written on their way; what they are is what they were when they arrived."""

Unit = tuple[ChainId, int]
"""A rule, by its chain and number; 0 is the policy."""


@dataclass(frozen=True, slots=True)
class Listens:
    """Unknown: whether a local socket is there to take what is diverted."""

    host: str
    port: int | None


@dataclass(frozen=True, slots=True)
class Chance:
    """Unknown: whether a statement about limits, quotas or numbers of connections matches."""

    host: str
    unit: Unit
    place: int


@dataclass(slots=True)
class Record:
    """What was seen on the way, by rule."""

    reached: dict[Unit, PacketSet] = field(default_factory=dict)
    matched: dict[Unit, PacketSet] = field(default_factory=dict)
    """Those for which the whole rule matched."""
    dropped: dict[Unit, PacketSet] = field(default_factory=dict)
    looked_up: dict[tuple[Unit, int], list[tuple[Base, Written, PacketSet]]] = field(default_factory=dict)
    """By rule and place of a statement: what came to a look-up in a collection."""
    final: dict[tuple[Unit, Base], Sets] = field(default_factory=dict)
    """What came to rules that accept, or that drop without the name of a counter."""


@dataclass(frozen=True, slots=True)
class Ends:
    """What a part of a chain decides."""

    accepted: Sets
    dropped: Sets
    rest: Sets
    """Without a verdict."""


def merge(*several: Mapping[Written, PacketSet]) -> Sets:
    """Return the union."""
    found: Sets = {}
    for sets in several:
        for written, packets in sets.items():
            add(found, written, packets)
    return found


def add(sets: Sets, written: Written, packets: PacketSet) -> None:
    """Add packets to sets."""
    if packets.satisfiable():
        known = sets.get(written)
        sets[written] = packets if known is None else known | packets


def together(space: Space, sets: Mapping[Written, PacketSet]) -> PacketSet:
    """Return the packets of sets, whatever was written."""
    return space.union(list(sets.values()))


def note(record: dict[Unit, PacketSet], unit: Unit, packets: PacketSet) -> None:
    """Add packets to what is noted of a rule."""
    known = record.get(unit)
    record[unit] = packets if known is None else known | packets
