"""A ruleset as a formula of z3: whether a symbolic packet gets through hooks, and what is written on it then.

A chain is a nested conditional over its rules, the last rule innermost; what rules write is a bit-vector that depends
on conditions. Written from nft(8) and the kernel's behaviour; shares the model of a ruleset with the diagrams, and
nothing of how they go about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import z3

from netpolicy.proof import fields
from netpolicy.proof.fields import STATES, Family, Field, State
from netpolicy.proof.model import (
    Assign,
    Base,
    Chain,
    Collection,
    Dispatch,
    Divert,
    Element,
    Hook,
    Match,
    Name,
    Note,
    Rule,
    Ruleset,
    Term,
    Translate,
    Unknown,
    Value,
    Verdict,
    VerdictKind,
)
from tests.proof.z3_packet import NO, YES, Symbols, both, choose, either, opposite

_DEFRAGMENTED_FROM, _TRACKED_FROM = -400, -200
_BY_RULES = (fields.MARK, fields.ZONE, fields.CT_MARK, fields.TRANSPARENT)
_BY_KERNEL = (fields.TTL, fields.LENGTH)
_BY_KERNEL_6 = (fields.NEXT_HEADER, fields.EXTENSIONS["frag"])
_FRAGMENT_HEADER = 44
_OF_CONNECTIONS = (fields.ZONE, fields.CT_MARK, fields.DIRECTION)


@dataclass(frozen=True, slots=True, repr=False)
class Written:
    """The fields that do not stay as they were, as they are at some place."""

    values: Mapping[Field, z3.BitVecRef]
    zoned: z3.BoolRef
    """Whether a zone was set: the first one stays."""
    port: z3.BitVecRef
    """Of the local socket it was handed to; 0: of none, or of none that a rule names."""

    def identity(self) -> tuple[int, ...]:
        """Return what tells it from others."""
        return (*(value.get_id() for value in self.values.values()), self.zoned.get_id(), self.port.get_id())

    def differs(self, other: Written) -> z3.BoolRef:
        """Tell whether something else is written."""
        values = ((value, other.values[each]) for each, value in self.values.items())
        pairs = [*values, (self.zoned, other.zoned), (self.port, other.port)]
        return either(one != another for one, another in pairs if not one.eq(another))

    def where(self, condition: z3.BoolRef, other: Written) -> Written:
        """Return this if a condition holds, else the other."""
        if z3.is_true(condition) or self is other:
            return self
        values = {each: choose(condition, value, other.values[each]) for each, value in self.values.items()}
        zoned, port = choose(condition, self.zoned, other.zoned), choose(condition, self.port, other.port)
        return Written(values, zoned, port)

    def changed(self, changes: Mapping[Field, z3.BitVecRef]) -> Written:
        """Return it with other values of some fields."""
        return Written({**self.values, **changes}, self.zoned, self.port)

    def set(self, written: Field, value: z3.BitVecRef) -> Written:
        """Return it after a rule has set a field."""
        after = self.changed({written: value})
        if written is not fields.ZONE:
            return after
        return Written(self.where(self.zoned, after).values, YES, self.port)


@dataclass(frozen=True, slots=True, repr=False)
class Outcome:
    """What a chain does."""

    accepted: z3.BoolRef
    dropped: z3.BoolRef
    """Neither: the packet comes back from it."""
    written: Written

    def where(self, condition: z3.BoolRef, other: Outcome) -> Outcome:
        """Return this if a condition holds, else the other."""
        return Outcome(
            choose(condition, self.accepted, other.accepted),
            choose(condition, self.dropped, other.dropped),
            self.written.where(condition, other.written),
        )


@dataclass(frozen=True, slots=True, repr=False)
class Matched:
    """Where a whole rule matches."""

    rule: Rule
    condition: z3.BoolRef
    before: Written
    """What is written on what comes to the rule."""
    after: Written


@dataclass(frozen=True, slots=True, repr=False)
class Look:
    """Where something is looked up in a collection."""

    rule: Rule
    statement: Match | Dispatch | Translate
    condition: z3.BoolRef
    written: Written


@dataclass(slots=True, repr=False)
class Visit:
    """A chain gone through with the same things written: what happens there if a packet comes."""

    chain: Chain
    at: Base
    came: list[tuple[Visit | None, z3.BoolRef]] = field(default_factory=list)
    """From where, and when; a hook, not a chain, where there is none."""
    matched: list[Matched] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)


@dataclass(slots=True, repr=False)
class _Here:
    """A chain that is being read, and how it ends: conditions in order, each with what comes of it."""

    visit: Visit
    exits: list[tuple[z3.BoolRef, Outcome]] = field(default_factory=list)
    left: z3.BoolRef = YES
    """Whether none of them holds."""

    def exit(self, condition: z3.BoolRef, outcome: Outcome) -> None:
        """Add one."""
        self.exits.append((condition, outcome))
        self.left = both(self.left, opposite(condition))


@dataclass(frozen=True, slots=True, repr=False)
class _Taking:
    """A rule that is being read, and what is written on what comes to it."""

    here: _Here
    rule: Rule
    before: Written


Chance = Callable[[Rule, int, Unknown | Divert], z3.BoolRef]
"""The truth value that stands for what a packet alone does not decide: by rule, and place in it."""


@dataclass(slots=True, repr=False)
class Formulas:
    """A ruleset over a symbolic packet."""

    ruleset: Ruleset
    packet: Symbols
    chance: Chance
    visits: dict[tuple[object, ...], Visit] = field(default_factory=dict)
    _known: dict[tuple[object, ...], Outcome] = field(default_factory=dict)

    def fresh(self) -> Written:
        """Return what is written on a packet that nobody has touched."""
        several = (*_BY_RULES, *_BY_KERNEL, *(_BY_KERNEL_6 if self.packet.family is Family.IPV6 else ()))
        return Written({each: self.packet[each] for each in several}, NO, z3.BitVecVal(0, 16))

    def through(self, hooks: Sequence[Hook], comes: z3.BoolRef = YES) -> tuple[z3.BoolRef, Written]:
        """Return whether hooks pass the packet on if it comes, and what is written on it then."""
        passing, written = comes, self.fresh()
        for hook in hooks:
            if hook is Hook.FORWARD:
                passing = both(passing, z3.UGT(written.values[fields.TTL], 1))
                written = written.changed({fields.TTL: written.values[fields.TTL] - 1})
            if hook is Hook.INPUT and self.packet.family is Family.IPV4:
                passing = both(passing, opposite(self.packet.fragment()))
            for chain in self.ruleset.hook(hook, self.packet.family):
                passing, written = self.past(chain, passing, written)
            if self.ruleset.tracks(self.packet.family):
                passing, written = both(passing, opposite(self.packet.kept())), self._put_together(written)
        return passing, written

    def past(self, chain: Chain, passing: z3.BoolRef, written: Written) -> tuple[z3.BoolRef, Written]:
        """Return whether a base chain passes on what comes to it, and what is written then."""
        at = chain.base
        assert at is not None
        entry = at.hook in {Hook.PREROUTING, Hook.OUTPUT} and at.priority <= _DEFRAGMENTED_FROM
        if self.ruleset.tracks(self.packet.family) and not entry:
            passing, written = both(passing, opposite(self.packet.kept())), self._put_together(written)
        outcome = self._chain(chain, at, written, (None, passing))
        stays = outcome.accepted if not at.accepts else opposite(outcome.dropped)
        return both(passing, stays), outcome.written

    def rest(self, visit: Visit, rule: Rule, written: Written) -> Outcome:
        """Return what the rules behind one would do with what comes to it."""
        return self._chain(visit.chain, visit.at, written, None, rule.number)

    def keys(self, look: Look, at: Base) -> list[z3.BoolRef]:
        """Return for each element of a collection whether it is the one that is found."""
        terms, elements = look.statement.terms, look.statement.collection.elements
        read = [self._read(term, at, look.written) for term in terms]
        readable = both(look.condition, *(can for can, _ in read))
        if z3.is_false(readable):
            return [NO for _ in elements]
        values = [value for _, value in read]
        held = [None if element.key is None else self._key(values, element) for element in elements]
        others = opposite(either(each for each in held if each is not None))
        return [both(readable, others if each is None else each) for each in held]

    def _put_together(self, written: Written) -> Written:
        """Return what is written on it where fragments are put together: a lone one loses its header (RFC 6946)."""
        if self.packet.family is Family.IPV4:
            return written
        header = fields.EXTENSIONS["frag"]
        first, length = written.values[fields.NEXT_HEADER], written.values[fields.LENGTH]
        lone = both(written.values[header] == 1, opposite(self.packet.fragment()))
        without = {
            header: z3.BitVecVal(0, 1),
            fields.LENGTH: length - 8,
            fields.NEXT_HEADER: choose(first == _FRAGMENT_HEADER, self.packet[fields.PROTOCOL], first),
        }
        return written.changed(without).where(lone, written)

    def _chain(
        self,
        chain: Chain,
        at: Base,
        written: Written,
        came: tuple[Visit | None, z3.BoolRef] | None,
        behind: int = 0,
    ) -> Outcome:
        """Return what the rules of a chain behind one of a number do."""
        key = (chain.id, behind, at, *written.identity())
        found = self._known.get(key)
        if found is None:
            here = _Here(self.visits.setdefault(key, Visit(chain, at)))
            for rule in chain.rules[behind:]:
                written = self._rule(here, rule, written)
            found = Outcome(NO, NO, written)
            for condition, outcome in reversed(here.exits):
                found = outcome.where(condition, found)
            self._known[key] = found
        if came is not None:
            self.visits[key].came.append(came)
        return found

    def _rule(self, here: _Here, rule: Rule, written: Written) -> Written:
        """Add how a rule ends the chain to its exits; return what is written where it does not."""
        live, at, taking = YES, here.visit.at, _Taking(here, rule, written)
        for place, statement in enumerate(rule.statements):
            if z3.is_false(live):
                return written
            if isinstance(statement, Unknown) and statement.counts:
                # Nothing of a later fragment can be counted, and it is dropped at once, if the set has room.
                counted = self._statement(rule, place, at, live, written)[0] if statement.terms else live
                here.exit(both(counted, self.packet.later_fragment()), Outcome(NO, YES, written))
            if isinstance(statement, Match | Dispatch | Translate):
                here.visit.looks.append(Look(rule, statement, both(here.left, live), written))
            if isinstance(statement, Verdict):
                return self._verdict(taking, statement, live, written)
            if isinstance(statement, Dispatch):
                onward = written
                for verdict, chosen in self._by_data(statement.terms, statement.collection, at, written):
                    assert isinstance(verdict, Verdict)
                    taken = both(live, chosen)
                    onward = self._verdict(taking, verdict, taken, written).where(taken, onward)
                return onward
            live, written = self._statement(rule, place, at, live, written)
        here.visit.matched.append(Matched(rule, both(here.left, live), taking.before, written))
        return written

    def _verdict(self, taking: _Taking, verdict: Verdict, taken: z3.BoolRef, written: Written) -> Written:
        """Add what a verdict ends to the exits; return what is written where it ends nothing."""
        here = taking.here
        chain, at = here.visit.chain, here.visit.at
        comes = both(here.left, taken)
        here.visit.matched.append(Matched(taking.rule, comes, taking.before, written))
        if z3.is_false(taken) or verdict.kind is VerdictKind.CONTINUE:
            return written
        if verdict.target is None:
            kind = verdict.kind
            ends = Outcome(YES if kind is VerdictKind.ACCEPT else NO, YES if kind is VerdictKind.DROP else NO, written)
            here.exit(taken, ends)
            return written
        called = self._chain(self.ruleset.chains[chain.target(verdict.target)], at, written, (here.visit, comes))
        if verdict.kind is VerdictKind.GOTO:
            here.exit(taken, called)
            return written
        here.exit(both(taken, either([called.accepted, called.dropped])), called)
        return called.written.where(taken, written)

    def _statement(
        self, rule: Rule, place: int, at: Base, live: z3.BoolRef, written: Written
    ) -> tuple[z3.BoolRef, Written]:
        """Return whether the rule still matches after a statement, and what is written."""
        statement = rule.statements[place]
        if isinstance(statement, Match):
            readable, held = self._held(statement.terms, statement.collection, at, written)
            return both(live, readable, opposite(held) if statement.negated else held), written
        if isinstance(statement, Unknown):
            readable = [self._read(term, at, written)[0] for term in statement.terms]
            return both(live, *readable, self.chance(rule, place, statement)), written
        if isinstance(statement, Assign):
            readable = self._read(Term(statement.field), at, written)[0] if statement.reads else YES
            live, old = both(live, readable), written.values[statement.field]
            return live, written.set(statement.field, (old & statement.keep) | statement.value).where(live, written)
        if isinstance(statement, Translate):
            new, found = written, NO
            for number, chosen in self._by_data(statement.terms, statement.collection, at, written):
                value = z3.BitVecVal(number, statement.field.bits)
                new = written.set(statement.field, value).where(both(live, chosen), new)
                found = either([found, chosen])
            return both(live, found), new
        if isinstance(statement, Divert):
            return self._divert(statement, both(live, self.chance(rule, place, statement)), written)
        assert isinstance(statement, Note)
        return live, written

    def _divert(self, statement: Divert, live: z3.BoolRef, written: Written) -> tuple[z3.BoolRef, Written]:
        if statement.family is not self.packet.family:
            return NO, written
        live = both(live, self.packet.equals(fields.PROTOCOL, *statement.protocols))
        seen = written.changed({fields.TRANSPARENT: z3.BitVecVal(1, 1)})
        handed = Written(seen.values, written.zoned, z3.BitVecVal(statement.port or 0, 16))
        return live, handed.where(live, written)

    def _by_data(
        self, terms: Sequence[Term], collection: Collection, at: Base, written: Written
    ) -> Iterator[tuple[Verdict | int | None, z3.BoolRef]]:
        """Yield what a map holds, each with the condition for it."""
        read = [self._read(term, at, written) for term in terms]
        readable = both(*(can for can, _ in read))
        if z3.is_false(readable):
            return
        values = [value for _, value in read]
        found: dict[Verdict | int | None, list[z3.BoolRef]] = {}
        for element in collection.elements:
            if element.key is not None:
                found.setdefault(element.data, []).append(self._key(values, element))
        others = [element for element in collection.elements if element.key is None]
        for element in others:
            rest = opposite(either(each for keys in found.values() for each in keys))
            found.setdefault(element.data, []).append(rest)
        for data, keys in found.items():
            yield data, both(readable, either(keys))

    def _held(
        self, terms: Sequence[Term], collection: Collection, at: Base, written: Written
    ) -> tuple[z3.BoolRef, z3.BoolRef]:
        """Return whether terms can be read, and if so, whether a collection holds them."""
        read = [self._read(term, at, written) for term in terms]
        readable = both(*(can for can, _ in read))
        if z3.is_false(readable) or any(element.key is None for element in collection.elements):
            return readable, YES
        values = [value for _, value in read]
        return readable, either(self._key(values, element) for element in collection.elements)

    def _key(self, values: Sequence[z3.BitVecRef], element: Element) -> z3.BoolRef:
        parts = zip(values, element.key or (), strict=True)
        return both(*(self._is(value, part) for value, part in parts))

    def _is(self, value: z3.BitVecRef, part: Value) -> z3.BoolRef:
        if isinstance(part, Name):
            return either(value == code for code, name in enumerate(self.packet.names) if name and name in part)
        top = (1 << value.size()) - 1
        first, last = max(part.first, 0), min(part.last, top)
        if first >= last:
            return value == first if first == last else NO
        return both(
            z3.UGE(value, first) if first > 0 else YES,
            z3.ULE(value, last) if last < top else YES,
        )

    def _read(self, term: Term, at: Base, written: Written) -> tuple[z3.BoolRef, z3.BitVecRef]:
        """Return whether a term can be read, and what it reads then."""
        packet, wanted = self.packet, term.field
        if term.family not in {None, packet.family}:
            return NO, z3.BitVecVal(0, 1)
        tracked = at.hook not in {Hook.PREROUTING, Hook.OUTPUT} or at.priority > _TRACKED_FROM
        conditions = []
        if term.protocol is not None:
            conditions.append(packet[fields.PROTOCOL] == term.protocol)
        if wanted in _OF_CONNECTIONS:
            known = opposite(packet.in_state(State.INVALID, State.UNTRACKED))
            conditions.append(known if tracked else NO)
        value = written.values[wanted] if wanted in written.values else packet[wanted]
        if wanted is fields.STATE and not tracked:
            value = z3.BitVecVal(STATES.index(State.INVALID), wanted.bits)
        elsewhere = {fields.OIF: {Hook.PREROUTING, Hook.INPUT}, fields.IIF: {Hook.OUTPUT}}
        if at.hook in elsewhere.get(wanted, ()):
            value = z3.BitVecVal(packet.names.index(""), packet.width(wanted))
        if term.shift:
            value = z3.Extract(value.size() - 1, term.shift, value)
        if term.mask is not None:
            value = value & (term.mask & ((1 << value.size()) - 1))
        return both(*conditions), value
