"""Sets of packets, exactly: binary decision diagrams (OxiDD) over the bits of the fields.

A space holds one diagram manager.  Two sets of one space are equal when they hold the same packets, and that is a
comparison of two numbers.  Beside the packet, sets depend on unknowns: bits for what no packet decides.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from oxidd.bdd import BDDFunction, BDDManager

from netpolicy.proof import fields
from netpolicy.proof.evaluate import Packet
from netpolicy.proof.fields import FIELDS, STATES, WALKED, Family, Field, State, bits_of
from netpolicy.proof.model import Name, Span

PacketSet = BDDFunction
"""With ``&``, ``|``, ``~``, ``==`` and ``satisfiable()``."""


def minus(packets: PacketSet, gone: PacketSet) -> PacketSet:
    """Return the packets of one set that are not in another; cheaper than by the complement."""
    return gone.imp_strict(packets)


Bits = tuple[BDDFunction, ...]
"""Of a value, the most significant first; constants where the value is known."""

_NODES = 1 << 22
_CACHE = 1 << 20
_OTHER = "other"


@dataclass(frozen=True, slots=True)
class Packets:
    """One packet of a set, with what the unknowns are for it."""

    packet: Packet
    unknown: Mapping[Hashable, bool]


@dataclass(slots=True)
class Space:
    """All packets of one family at hosts with certain names of interfaces."""

    family: Family
    names: tuple[str, ...]
    """Of interfaces: those that anything asks for, one more for each beginning asked for, one for all others, and none.
    """
    true: PacketSet = field(init=False)
    false: PacketSet = field(init=False)
    valid: PacketSet = field(init=False)
    """The packets that there are: the fields of others contradict each other."""
    _manager: BDDManager = field(init=False)
    _bits: dict[Field, Bits] = field(init=False, default_factory=dict)
    _unknown: dict[Hashable, BDDFunction] = field(init=False, default_factory=dict)
    _numbers: dict[Field, range] = field(init=False, default_factory=dict)
    """Of the diagrams' variables."""

    @classmethod
    def over(cls, family: Family, names: Iterable[str]) -> Space:
        """Return a space for rulesets that ask for `names`, or beginnings of names with ``*``."""
        asked = sorted(set(names) - {""})
        exact = [name for name in asked if not name.endswith("*")]
        found = ["", *exact]
        for beginning in [name[:-1] for name in asked if name.endswith("*")] + [_OTHER]:
            found.append(_fresh(beginning, found))
        return cls(family, tuple(found))

    def __post_init__(self) -> None:
        self._manager = BDDManager(_NODES, _CACHE, 1)
        self.true, self.false = self._manager.true(), self._manager.false()
        for each in FIELDS:
            if each.family in {None, self.family} and each not in self._numbers:
                # Where there are no extension headers these two are equal: bit beside bit that is a small diagram.
                twins = (each, fields.NEXT_HEADER) if each is fields.PROTOCOL and self._has_extensions else (each,)
                new = self._manager.add_vars(self.width(each) * len(twins))
                for place, twin in enumerate(twins):
                    self._numbers[twin] = new[place :: len(twins)]
                    self._bits[twin] = tuple(self._manager.var(number) for number in self._numbers[twin])
        self.valid = self._valid()

    @property
    def _has_extensions(self) -> bool:
        return self.family is Family.IPV6

    def width(self, wanted: Field) -> int:
        """Return the bits of a field in this space."""
        if wanted in {fields.IIF, fields.OIF}:
            return max(1, (len(self.names) - 1).bit_length())
        return bits_of(wanted, self.family)

    def bits(self, wanted: Field) -> Bits:
        """Return the bits of a field."""
        if wanted is fields.NFPROTO:
            return self.constant(int(self.family), wanted.bits)
        return self._bits[wanted]

    def constant(self, value: int, width: int) -> Bits:
        """Return the bits of a number."""
        return tuple(self.true if value >> place & 1 else self.false for place in reversed(range(width)))

    def unknown(self, key: Hashable) -> PacketSet:
        """Return the packets for which an unknown holds; the same for the same key."""
        found = self._unknown.get(key)
        if found is None:
            (number,) = self._manager.add_vars(1)
            found = self._unknown[key] = self._manager.var(number)
        return found

    def code(self, name: str) -> int:
        """Return the number of an interface's name; of one that nothing asks for, that of all others."""
        return self.names.index(name) if name in self.names else len(self.names) - 1

    def named(self, bits: Bits, name: Name) -> PacketSet:
        """Return the packets for which a name's bits are of `name`."""
        codes = [code for code, each in enumerate(self.names) if each and each in name]
        return self.union([self.among(bits, Span(code, code)) for code in codes])

    def interface(self, wanted: Field, names: Iterable[str]) -> PacketSet:
        """Return the packets whose interface has one of some names."""
        codes = {self.code(name) for name in names}
        return self.union([self.among(self.bits(wanted), Span(code, code)) for code in sorted(codes)])

    def among(self, bits: Bits, span: Span) -> PacketSet:
        """Return the packets for which a number is within a span."""
        top = (1 << len(bits)) - 1
        if span.first > span.last or span.first > top:
            return self.false
        if span.first == span.last:
            return self._equal(bits, span.first)
        found = self.true
        if span.last < top:
            found = self._at_most(bits, span.last)
        return found & self._at_least(bits, span.first) if span.first > 0 else found

    def where(self, wanted: Field, first: int, last: int | None = None) -> PacketSet:
        """Return the packets whose field is `first`, or between both."""
        return self.among(self.bits(wanted), Span(first, first if last is None else last))

    def having(self, wanted: Field, mask: int, value: int) -> PacketSet:
        """Return the packets whose field has `value` under `mask`."""
        found = self.true
        for place, bit in enumerate(reversed(self.bits(wanted))):
            if mask >> place & 1:
                found &= bit if value >> place & 1 else ~bit
        return found

    def in_state(self, *states: State) -> PacketSet:
        """Return the packets that connection tracking sees in one of some states."""
        return self.union([self.where(fields.STATE, STATES.index(state)) for state in states])

    def union(self, sets: Collection[PacketSet]) -> PacketSet:
        """Return the union, halves first: in a row, each step would cost as much as all before it."""
        rest = list(sets) or [self.false]
        while len(rest) > 1:
            rest = [
                rest[place] | rest[place + 1] if place + 1 < len(rest) else rest[place]
                for place in range(0, len(rest), 2)
            ]
        return rest[0]

    def without(self, packets: PacketSet, gone: Iterable[Field]) -> PacketSet:
        """Return the packets that are in the set with some values of the fields that are `gone`."""
        return packets.exists(self._cube(bit for each in gone if each in self._bits for bit in self._bits[each]))

    def projected(self, packets: PacketSet, bits: Iterable[PacketSet]) -> PacketSet:
        """Return the packets that have these bits in common with one of the set; or the set, if one is not their own.

        Sets that depend on these bits alone meet the one if and only if they meet the other.
        """
        kept = set()
        for bit in bits:
            number = bit.node_var()
            if number is None:
                continue  # it is the same for all
            if bit != self._manager.var(number):
                return packets
            kept.add(number)
        rest = (self._manager.var(number) for number in range(self._manager.num_vars()) if number not in kept)
        return packets.exists(self._cube(rest))

    def surely(self, packets: PacketSet) -> PacketSet:
        """Return the packets that are in the set whatever is unknown."""
        return packets.forall(self._cube(self._unknown.values()))

    def possibly(self, packets: PacketSet) -> PacketSet:
        """Return the packets that are in the set for something that is unknown."""
        return packets.exists(self._cube(self._unknown.values()))

    def depends_on(self, packets: PacketSet) -> Iterator[Hashable]:
        """Yield the keys of the unknowns that make a difference to a set."""
        # Most make none: halves of them are asked about at once.
        asked = [list(self._unknown.items())]
        while asked:
            some = asked.pop()
            if not some or packets.exists(self._cube(unknown for _, unknown in some)) == packets:
                continue
            if len(some) == 1:
                yield some[0][0]
            else:
                asked += [some[len(some) // 2 :], some[: len(some) // 2]]

    def fragments(self) -> PacketSet:
        """Return the packets that are parts of others."""
        if self.family is Family.IPV4:
            return ~self.having(fields.FRAG_OFF, 0x3FFF, 0)
        part = self.where(fields.LATER_FRAGMENT, 1) | self.where(fields.MORE_FRAGMENTS, 1)
        return self.where(fields.EXTENSIONS["frag"], 1) & part

    def held(self) -> PacketSet:
        """Return the packets that the kernel keeps until the others are there, once it puts anything together."""
        if self.family is Family.IPV4:
            return self.fragments()
        return self.fragments() & self.where(fields.ODD_FRAGMENT, 0)

    def bare(self) -> PacketSet:
        """Return the packets that end with their TCP header, without extension headers or options before it.

        They ask for no TCP Fast Open.
        """
        found = self.union(
            [
                self.where(fields.DATA_OFFSET, words)
                & self.where(fields.LENGTH, fields.bare_length(self.family, words))
                for words in range(5, 16)
            ]
        )
        for each in fields.TCP_OPTIONS.values():
            found &= self.where(each, 0)
        return found

    def less(self, bits: Bits, by: int) -> Bits:
        """Return the bits of a number less another one, around zero."""
        found: list[BDDFunction] = []
        borrow = self.false
        for place, bit in enumerate(reversed(bits)):
            taken = self.true if by >> place & 1 else self.false
            found.append(bit ^ taken ^ borrow)
            borrow = (~bit & (taken | borrow)) | (taken & borrow)
        return tuple(reversed(found))

    def either(self, condition: PacketSet, these: Bits, others: Bits) -> Bits:
        """Return the bits of one number where a condition holds, and of another one elsewhere."""
        return tuple(condition.ite(one, other) for one, other in zip(these, others, strict=True))

    def later_fragments(self) -> PacketSet:
        """Return those of them that have no transport header."""
        if self.family is Family.IPV4:
            return ~self.having(fields.FRAG_OFF, 0x1FFF, 0)
        return self.where(fields.LATER_FRAGMENT, 1)

    def count(self, packets: PacketSet) -> int:
        """Return how many there are, counting each value of each field and each unknown."""
        return int(packets.sat_count(self._manager.num_vars()))

    def pick(self, packets: PacketSet) -> Packets | None:
        """Return one, as ordinary a packet as the set has; None of an empty set."""
        if not (packets & self.valid).satisfiable():
            return None
        found = packets & self.valid
        for liking in self._ordinary():
            liked = found & liking
            found = liked if liked.satisfiable() else found
        cube = found.pick_cube()
        assert cube is not None  # noqa: S101 - it was satisfiable
        values: dict[Field, int | str] = {}
        for each, numbers in self._numbers.items():
            value = 0
            for number in numbers:
                value = value << 1 | bool(cube[number])
            values[each] = self.names[value] if each in {fields.IIF, fields.OIF} else value
        unknown = {
            key: bool(cube[number])
            for key, number in zip(self._unknown, range(len(cube) - len(self._unknown), len(cube)), strict=True)
        }
        return Packets(Packet(self.family, {each: value for each, value in values.items() if value}), unknown)

    def of(self, packet: Packet) -> PacketSet:
        """Return the set of one packet."""
        found = self.true
        for each in self._bits:
            value = packet[each]
            number = self.code(value) if isinstance(value, str) else value
            found &= self.where(each, number)
        return found

    def _ordinary(self) -> Iterator[PacketSet]:
        """Yield what most packets are."""
        yield ~self.fragments()
        if self.family is Family.IPV4:
            yield self.where(fields.HEADER_LENGTH, 5)
            yield self.where(fields.FRAG_OFF, 0)
        yield self.where(fields.MARK, 0) & self.where(fields.ZONE, 0) & self.where(fields.CT_MARK, 0)
        yield self.where(fields.PROTOCOL, fields.TCP)
        yield self.in_state(State.NEW)
        yield self.where(fields.TCP_FLAGS, fields.SYN)
        yield self.where(fields.TCP_FLAGS, fields.ACK)
        yield self.where(fields.TTL, 64)
        yield self.where(fields.SPORT, 40000)
        yield self.bare()
        yield self.where(fields.DATA_OFFSET, fields.BARE_OFFSET)
        yield self.where(fields.LENGTH, 60)
        yield self.where(fields.PACKET_TYPE, 0)
        yield self.where(fields.TRANSPARENT, 0)
        yield self.where(fields.DSCP, 0) & self.where(fields.ECN, 0)

    def _valid(self) -> PacketSet:
        found = self.where(fields.STATE, 0, len(STATES) - 1) & self.where(fields.PACKET_TYPE, 0, 3)
        for each in (fields.IIF, fields.OIF):
            found &= self.where(each, 0, len(self.names) - 1)
        found &= self.where(fields.DAY, 0, 6) & self.where(fields.HOUR, 0, 24 * 60 * 60 - 1)
        # What begins a connection goes in its original direction; what belongs to none goes in no direction.
        found &= self.where(fields.DIRECTION, 0) | self.in_state(State.ESTABLISHED, State.RELATED)
        # The kernel finds options where there is room for one, in a TCP header that is there.
        room = self.where(fields.PROTOCOL, fields.TCP) & self.where(fields.DATA_OFFSET, 6, 15) & ~self.later_fragments()
        for each in fields.TCP_OPTIONS.values():
            found &= self.where(each, 0) | room
        if self.family is Family.IPV4:
            found &= self.where(fields.HEADER_LENGTH, 5, 15)
            return found & ~self.where(fields.PROTOCOL, fields.ICMPV6)
        return found & self._extensions()

    def _extensions(self) -> PacketSet:
        """Return the packets whose headers announce each other (RFC 8200)."""
        none = self.true
        for each in fields.EXTENSIONS.values():
            none &= self.where(each, 0)
        plain = none
        for one, other in zip(self.bits(fields.NEXT_HEADER), self.bits(fields.PROTOCOL), strict=True):
            plain &= ~(one ^ other)
        walked = self.union(
            [
                self.where(fields.NEXT_HEADER, number) & (self.where(fields.EXTENSIONS[name], 1) if name else self.true)
                for number, name in WALKED.items()
            ]
        )
        final = ~self.union([self.where(fields.PROTOCOL, number) for number in WALKED])
        parts = (fields.LATER_FRAGMENT, fields.MORE_FRAGMENTS, fields.ODD_FRAGMENT)
        none_of_them = self.true
        for each in parts:
            none_of_them &= self.where(each, 0)
        fragment = self.where(fields.EXTENSIONS["frag"], 1) | none_of_them
        odd = self.where(fields.ODD_FRAGMENT, 0) | self.where(fields.MORE_FRAGMENTS, 1)
        return (plain | walked) & final & fragment & odd & ~self.where(fields.PROTOCOL, fields.ICMP)

    def _equal(self, bits: Bits, value: int) -> PacketSet:
        if value >> len(bits):
            return self.false
        found = self.true
        for place, bit in enumerate(reversed(bits)):  # from the bottom of the diagram up
            found = (bit if value >> place & 1 else ~bit) & found
        return found

    def _at_most(self, bits: Bits, value: int) -> PacketSet:
        found = self.true
        for place, bit in enumerate(reversed(bits)):
            found = ~bit | found if value >> place & 1 else ~bit & found
        return found

    def _at_least(self, bits: Bits, value: int) -> PacketSet:
        found = self.true
        for place, bit in enumerate(reversed(bits)):
            found = bit & found if value >> place & 1 else bit | found
        return found

    def _cube(self, bits: Iterable[BDDFunction]) -> BDDFunction:
        found = self.true
        for bit in reversed(list(bits)):
            found = bit & found
        return found


def _fresh(beginning: str, taken: Sequence[str]) -> str:
    """Return a name that begins so and is not taken."""
    beginning = re.sub(r"[^!-~]", "", beginning)
    return next(name for number in range(len(taken) + 1) if (name := f"{beginning}{number}") not in taken)
