"""One packet as bit-vectors of z3: for a second opinion on what the diagrams say of all packets.

Nothing here looks at :mod:`netpolicy.proof.packetset` or :mod:`netpolicy.proof.symbolic`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import z3

from netpolicy.proof import fields
from netpolicy.proof.evaluate import Packet
from netpolicy.proof.fields import FIELDS, STATES, Family, Field, State

NO, YES = z3.BoolVal(False), z3.BoolVal(True)
_WALKED_ALONE = 51
"""The Authentication header: looked behind, and no field says that it is there."""


def both(*parts: z3.BoolRef) -> z3.BoolRef:
    """Return a conjunction without what is trivial."""
    found = [part for part in parts if not z3.is_true(part)]
    if any(z3.is_false(part) for part in found):
        return NO
    return found[0] if len(found) == 1 else z3.And(found) if found else YES


def either(parts: Iterable[z3.BoolRef]) -> z3.BoolRef:
    """Return a disjunction without what is trivial."""
    found = [part for part in parts if not z3.is_false(part)]
    if any(z3.is_true(part) for part in found):
        return YES
    return found[0] if len(found) == 1 else z3.Or(found) if found else NO


def opposite(part: z3.BoolRef) -> z3.BoolRef:
    """Return a negation."""
    return NO if z3.is_true(part) else YES if z3.is_false(part) else z3.Not(part)


def choose(condition: z3.BoolRef, yes: z3.ExprRef, no: z3.ExprRef) -> z3.ExprRef:
    """Return one value or the other."""
    if z3.is_true(condition) or yes.eq(no):
        return yes
    return no if z3.is_false(condition) else z3.If(condition, yes, no)


@dataclass(frozen=True, slots=True, repr=False)
class Symbols:
    """The fields of a packet of one family at a host with certain names of interfaces."""

    family: Family
    names: tuple[str, ...]
    """A value of an interface's field is an index of it; the empty name is the first."""
    _fields: dict[Field, z3.BitVecRef] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for each in FIELDS:
            if each.family in {None, self.family}:
                self._fields[each] = z3.BitVec(str(each), self.width(each))

    def width(self, wanted: Field) -> int:
        """Return how many bits a field has."""
        if wanted in {fields.IIF, fields.OIF}:
            return max(1, len(bin(len(self.names) - 1)) - 2)
        if wanted in {fields.SADDR, fields.DADDR}:
            return 32 if self.family is Family.IPV4 else 128
        return wanted.bits

    def __getitem__(self, wanted: Field) -> z3.BitVecRef:
        if wanted is fields.NFPROTO:
            return z3.BitVecVal(int(self.family), 8)
        return self._fields[wanted]

    def equals(self, wanted: Field, *values: int) -> z3.BoolRef:
        """Tell whether a field has one of some values."""
        return either(self[wanted] == value for value in values)

    def between(self, wanted: Field, first: int, last: int) -> z3.BoolRef:
        """Tell whether a field is within bounds."""
        return self[wanted] == first if first == last else both(z3.UGE(self[wanted], first), z3.ULE(self[wanted], last))

    def at(self, wanted: Field, *names: str) -> z3.BoolRef:
        """Tell whether an interface has one of some names, all of which are known."""
        return self.equals(wanted, *(self.names.index(name) for name in names))

    def in_state(self, *states: State) -> z3.BoolRef:
        """Tell whether connection tracking sees it in one of some states."""
        return self.equals(fields.STATE, *(STATES.index(state) for state in states))

    def fragment(self) -> z3.BoolRef:
        """Tell whether it is a part of another packet."""
        if self.family is Family.IPV4:
            return z3.Extract(13, 0, self[fields.FRAG_OFF]) != 0
        known = either([self[fields.LATER_FRAGMENT] == 1, self[fields.MORE_FRAGMENTS] == 1])
        return both(self[fields.EXTENSIONS["frag"]] == 1, known)

    def kept(self) -> z3.BoolRef:
        """Tell whether the kernel keeps it until the others are there, once it puts anything together."""
        if self.family is Family.IPV4:
            return self.fragment()
        return both(self.fragment(), self[fields.ODD_FRAGMENT] == 0)

    def later_fragment(self) -> z3.BoolRef:
        """Tell whether it is one that begins after the transport header."""
        if self.family is Family.IPV4:
            return z3.Extract(12, 0, self[fields.FRAG_OFF]) != 0
        return self[fields.LATER_FRAGMENT] == 1

    def valid(self) -> z3.BoolRef:
        """Tell whether there is such a packet at all."""
        tracked = self.in_state(State.ESTABLISHED, State.RELATED)
        found = [
            *(z3.ULT(self[each], bound) for each, bound in self._bounds() if bound < 1 << self.width(each)),
            z3.Implies(self[fields.DIRECTION] == fields.REPLY, tracked),
        ]
        roomy = both(self[fields.PROTOCOL] == 6, z3.UGT(self[fields.DATA_OFFSET], 5), opposite(self.later_fragment()))
        found += [z3.Implies(self[each] == 1, roomy) for each in fields.TCP_OPTIONS.values()]
        if self.family is Family.IPV4:
            return both(*found, z3.UGE(self[fields.HEADER_LENGTH], 5), self[fields.PROTOCOL] != fields.ICMPV6)
        return both(*found, *self._headers())

    def _bounds(self) -> list[tuple[Field, int]]:
        return [
            (fields.IIF, len(self.names)),
            (fields.OIF, len(self.names)),
            (fields.STATE, len(STATES)),
            (fields.PACKET_TYPE, 4),
            (fields.DAY, 7),
            (fields.HOUR, 86400),
        ]

    def _headers(self) -> list[z3.BoolRef]:
        """Return what holds of the chain of IPv6 headers (RFC 8200)."""
        following, transport = self[fields.NEXT_HEADER], self[fields.PROTOCOL]
        announced = {0: "hbh", 43: "rt", 44: "frag", 60: "dst"}
        present = either(self[each] == 1 for each in fields.EXTENSIONS.values())
        first = either(following == number for number in [*announced, _WALKED_ALONE])
        return [
            # The first header says what follows it; without extensions that is the transport protocol.
            *(
                z3.Implies(following == number, self[fields.EXTENSIONS[name]] == 1)
                for number, name in announced.items()
            ),
            z3.Implies(opposite(first), both(opposite(present), following == transport)),
            *(transport != number for number in [*announced, _WALKED_ALONE, fields.ICMP]),
            z3.Implies(self[fields.LATER_FRAGMENT] == 1, self[fields.EXTENSIONS["frag"]] == 1),
            z3.Implies(self[fields.MORE_FRAGMENTS] == 1, self[fields.EXTENSIONS["frag"]] == 1),
            z3.Implies(self[fields.ODD_FRAGMENT] == 1, self[fields.MORE_FRAGMENTS] == 1),
        ]

    def unmarked(self) -> z3.BoolRef:
        """Tell whether nobody has written anything on it yet."""
        return both(*(self[each] == 0 for each in (fields.MARK, fields.ZONE, fields.CT_MARK)))

    def packet(self, model: z3.ModelRef, *names: tuple[z3.ExprRef, z3.ExprRef]) -> Packet:
        """Return the packet of a model of z3, which may have other names for variables."""
        values: dict[Field, int | str] = {}
        renamed = {old.get_id(): new for old, new in names}
        for each, symbol in self._fields.items():
            value = model.eval(renamed.get(symbol.get_id(), symbol), model_completion=True).as_long()
            values[each] = self.names[value] if each in {fields.IIF, fields.OIF} else value
        return Packet(self.family, values)

    def same(self, packet: Packet) -> z3.BoolRef:
        """Tell whether it is this packet."""
        found = []
        for each, symbol in self._fields.items():
            value = packet[each]
            found.append(symbol == (self.names.index(value) if isinstance(value, str) else value))
        return both(*found)
