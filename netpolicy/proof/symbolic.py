"""What a ruleset does with all packets at once: the same judgement as :mod:`netpolicy.proof.evaluate`, over sets."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from netpolicy.proof import fields
from netpolicy.proof.evaluate import CONNECTED, ENTRY, WITHOUT
from netpolicy.proof.fields import STATES, Family, Field, State
from netpolicy.proof.model import (
    DEFRAGMENTATION,
    TRACKING,
    Assign,
    Base,
    Chain,
    Collection,
    Dispatch,
    Divert,
    Hook,
    Match,
    Note,
    Rule,
    Ruleset,
    Span,
    Statement,
    Term,
    Translate,
    Unknown,
    Verdict,
    VerdictKind,
)
from netpolicy.proof.packetset import Bits, PacketSet, Space, minus
from netpolicy.proof.written import Chance, Ends, Listens, Record, Sets, Unit, Written, add, merge, note, together

_MOST_HOPS = 255
_FRAGMENT_HEADER, _FRAGMENT_HEADER_BYTES = 44, 8


@dataclass(slots=True)
class Kernel:
    """A ruleset over a space."""

    host: str
    """Whose it is: what is unknown of one is not what is unknown of another."""
    ruleset: Ruleset
    space: Space
    record: Record = field(default_factory=Record)
    _known: dict[Hashable, PacketSet] = field(default_factory=dict)
    _elements: dict[Hashable, tuple[PacketSet, ...]] = field(default_factory=dict)
    _tracks: bool | None = None

    @property
    def tracks(self) -> bool:
        """Whether connections are tracked, and fragments put together."""
        if self._tracks is None:
            self._tracks = self.ruleset.tracks(self.space.family)
        return self._tracks

    def through(self, hook: Hook, sets: Sets) -> Sets:
        """Return what a hook passes on, with what its chains have written."""
        sets = self._before(hook, sets)
        for chain in self.ruleset.hook(hook, self.space.family):
            sets = self.chain(chain, sets)
        return self._only(sets, ~self.space.held()) if self.tracks else sets

    def _before(self, hook: Hook, sets: Sets) -> Sets:
        """Return sets as the kernel brings them to a hook."""
        if hook is Hook.FORWARD:
            # The hop is counted before the chains are asked (ip_forward, ip6_forward).
            going = {replace(written, hopped=True): packets for written, packets in sets.items()}
            return self._only(going, self.space.where(fields.TTL, 2, _MOST_HOPS))
        if hook is Hook.INPUT and self.space.family is Family.IPV4:
            return self._only(sets, ~self.space.fragments())  # ip_local_deliver puts them together itself
        return sets

    def chain(self, chain: Chain, sets: Sets) -> Sets:
        """Return what one base chain passes on."""
        at = chain.base
        assert at is not None  # noqa: S101 - those of a hook are base chains
        if self._together(at):
            sets = self._only(sets, ~self.space.held())
        walk = _Walk(self, at)
        rest = walk.chain(chain, sets)
        policy: Unit = (chain.id, 0)
        note(self.record.reached, policy, together(self.space, rest))
        if at.accepts:
            return merge(walk.accepted, rest)
        note(self.record.dropped, policy, together(self.space, rest))
        return walk.accepted

    def apart(self) -> Kernel:
        """Return it without a record, for what is only tried."""
        return Kernel(
            self.host, self.ruleset, self.space, _known=self._known, _elements=self._elements, _tracks=self.tracks
        )

    def part(self, chain: Chain, sets: Sets) -> Ends:
        """Return what the rules of a part of a chain decide; its base is where the whole chain is called."""
        at = chain.base
        assert at is not None  # noqa: S101 - it is given
        walk = _Walk(self, at)
        rest = walk.chain(chain, sets)
        return Ends(walk.accepted, walk.dropped, rest)

    def _together(self, at: Base) -> bool:
        """Tell whether fragments have been put together before a chain."""
        return self.tracks and (at.hook not in ENTRY or at.priority > DEFRAGMENTATION)

    def _only(self, sets: Sets, wanted: PacketSet) -> Sets:
        found: Sets = {}
        for written, packets in sets.items():
            add(found, written, packets & wanted)
        return found

    def holding(
        self, terms: tuple[Term, ...], collection: Collection, at: Base, written: Written
    ) -> tuple[PacketSet, ...]:
        """Return for each element of a collection the packets whose terms are its key; of all others' one, the rest."""
        key = (id(collection), *self._reading(terms, at, written))
        found = self._elements.get(key)
        if found is None:
            # Most hooks, and most of what was written, leave the very bits that terms read.
            bits = tuple(self.bits(term, at, written) for term in terms)
            found = self._elements.get((id(collection), bits))
            if found is None:
                found = self._elements[id(collection), bits] = self._keyed(collection, bits)
            self._elements[key] = found
        return found

    def _keyed(self, collection: Collection, bits: tuple[Bits, ...]) -> tuple[PacketSet, ...]:
        space = self.space
        keyed: dict[int, PacketSet] = {}
        for number, element in enumerate(collection.elements):
            if element.key is None:
                continue
            found = space.true
            for each, value in zip(bits, element.key, strict=True):
                found &= space.among(each, value) if isinstance(value, Span) else space.named(each, value)
            keyed[number] = found
        if len(keyed) == len(collection.elements):
            return tuple(keyed.values())
        rest = ~space.union(list(keyed.values()))
        return tuple(keyed.get(number, rest) for number in range(len(collection.elements)))

    def _reading(self, terms: Sequence[Term], at: Base, written: Written) -> tuple[Hashable, ...]:
        """Return all that decides what terms read."""
        place = (at.hook in {Hook.PREROUTING, Hook.INPUT}, at.hook is Hook.OUTPUT, _tracked(at), self._together(at))
        return (tuple(terms), *place, written.hopped, tuple(written.of(term.field) for term in terms))

    def readable(self, terms: Iterable[Term], at: Base) -> PacketSet:
        """Return the packets that have all of the terms."""
        space, found = self.space, self.space.true
        for term in terms:
            if term.family not in {None, space.family}:
                return space.false
            if term.protocol is not None:
                found &= space.where(fields.PROTOCOL, term.protocol)
            if term.field in CONNECTED:
                found &= ~space.in_state(*WITHOUT) if _tracked(at) else space.false
        return found

    def bits(self, term: Term, at: Base, written: Written) -> Bits:
        """Return the bits that a term reads."""
        space = self.space
        bits = space.bits(term.field)
        if term.field is fields.STATE and not _tracked(at):
            bits = space.constant(STATES.index(State.INVALID), len(bits))
        elif (term.field is fields.OIF and at.hook in {Hook.PREROUTING, Hook.INPUT}) or (
            term.field is fields.IIF and at.hook is Hook.OUTPUT
        ):
            bits = space.constant(space.code(""), len(bits))
        elif term.field is fields.TTL and written.hopped:
            bits = space.less(bits, 1)
        elif space.family is Family.IPV6 and self._together(at):
            bits = self._without_header(term.field, bits)
        bits = overwritten(space, term.field, written, bits)
        bits = bits[: len(bits) - term.shift]
        if term.mask is None:
            return bits
        places = reversed(range(len(bits)))
        return tuple(bit if term.mask >> place & 1 else space.false for place, bit in zip(places, bits, strict=True))

    def _without_header(self, wanted: Field, bits: Bits) -> Bits:
        """Return the bits of a field after packets that were no fragments have lost their Fragment headers."""
        space = self.space
        lone = space.where(fields.EXTENSIONS["frag"], 1) & ~space.fragments()
        if wanted is fields.EXTENSIONS["frag"]:
            return tuple(bit & ~lone for bit in bits)
        if wanted is fields.LENGTH:
            return space.either(lone, space.less(bits, _FRAGMENT_HEADER_BYTES), bits)
        if wanted is fields.NEXT_HEADER:
            first = lone & space.where(fields.NEXT_HEADER, _FRAGMENT_HEADER)
            return space.either(first, space.bits(fields.PROTOCOL), bits)
        return bits

    def held(self, terms: tuple[Term, ...], collection: Collection, at: Base, written: Written) -> PacketSet:
        """Return the packets whose terms, all of which they have, are in a collection."""
        key = (id(collection), *self._reading(terms, at, written))
        found = self._known.get(key)
        if found is None:
            readable = self.readable(terms, at)
            if any(element.key is None for element in collection.elements):
                found = readable
            elif not readable.satisfiable():
                found = self.space.false
            else:
                found = readable & self.space.union(self.holding(terms, collection, at, written))
            self._known[key] = found
        return found


def _assigned(written: Written, field: Field, keep: int, value: int) -> Written:
    """Return what is written after an assignment; of zones the first one stays."""
    if field is fields.ZONE and written.of(field) is not None:
        return written
    return written.with_field(field, keep, value)


def overwritten(space: Space, field: Field, written: Written, bits: Bits) -> Bits:
    """Return the bits of a field, which were these before rules have written on it."""
    changed = written.of(field)
    if changed is None:
        return bits
    keep, value = changed
    fixed = space.constant(value, len(bits))
    kept = reversed(range(len(bits)))
    return tuple(own if keep >> place & 1 else new for place, own, new in zip(kept, bits, fixed, strict=True))


def _tracked(at: Base) -> bool:
    return at.hook not in ENTRY or at.priority > TRACKING


def _nameless_end(rule: Rule) -> bool:
    """Tell whether a rule decides finally, and not by the name of a counter why it drops."""
    kinds = {each.kind for each in rule.statements if isinstance(each, Verdict)}
    if VerdictKind.ACCEPT in kinds:
        return True
    return VerdictKind.DROP in kinds and not any(isinstance(each, Note) and each.counter for each in rule.statements)


def _counts(statement: Statement) -> bool:
    """Tell whether a statement is a ``ct count``, which drops what it cannot count even in a rule without a verdict."""
    return isinstance(statement, Unknown) and statement.counts


@dataclass(frozen=True, slots=True)
class _Here:
    """A rule that is being judged."""

    chain: Chain
    rule: Rule
    onward: Sets
    """What goes on to the next rule."""
    back: Sets
    """What goes back to where the chain was called."""

    @property
    def unit(self) -> Unit:
        return self.rule.chain, self.rule.number


@dataclass(slots=True)
class _Walk:
    """The way of sets through one base chain."""

    kernel: Kernel
    at: Base
    accepted: Sets = field(default_factory=dict)
    dropped: Sets = field(default_factory=dict)

    def chain(self, chain: Chain, sets: Sets) -> Sets:
        """Return what comes back from a chain without a verdict."""
        back: Sets = {}
        for rule in chain.rules:
            if not sets:
                break
            here = _Here(chain, rule, {}, back)
            self._rule(here, sets)
            sets = here.onward
        return merge(sets, back)

    def _rule(self, here: _Here, sets: Sets) -> None:
        """Judge one rule."""
        record, space = self.kernel.record, self.kernel.space
        note(record.reached, here.unit, together(space, sets))
        if _nameless_end(here.rule):
            known = record.final.get((here.unit, self.at), {})
            record.final[here.unit, self.at] = merge(known, sets)
        decides = any(_counts(each) or not isinstance(each, Match | Unknown | Note) for each in here.rule.statements)
        entered = reaching = sets
        for place, statement in enumerate(here.rule.statements):
            if isinstance(statement, Unknown) and not decides:
                continue  # whether it logs makes no difference to anything
            self._look(here, place, sets)
            if isinstance(statement, Verdict | Dispatch):
                self._left(here, entered, self._ended(statement, sets))
                self._end(here, statement, sets)
                return
            if isinstance(statement, Match | Unknown):
                sets, entered = self._filtered(here, place, sets, entered)
            elif not isinstance(statement, Note):
                # What comes to it and does not match goes on as it was before it.
                self._left(here, entered, sets)
                entered = sets = self._written(here, statement, sets)
        note(record.matched, here.unit, together(space, sets))
        if decides:
            self._left(here, entered, sets)
        # Others let all go on, whether they matched or not.
        for written, packets in (sets if decides else reaching).items():
            add(here.onward, written, packets)

    def _look(self, here: _Here, place: int, sets: Sets) -> None:
        """Note what comes to a statement that looks something up."""
        if isinstance(here.rule.statements[place], Match | Dispatch | Translate):
            looked_up = self.kernel.record.looked_up
            for written, packets in sets.items():
                looked_up.setdefault((here.unit, place), []).append((self.at, written, packets))

    def _end(self, here: _Here, statement: Verdict | Dispatch, sets: Sets) -> None:
        """Judge the last statement of a rule."""
        for verdict, chosen in self._verdicts(statement, sets).items():
            note(self.kernel.record.matched, here.unit, together(self.kernel.space, chosen))
            self._verdict(here, verdict, chosen)

    def _left(self, here: _Here, entered: Sets, matching: Sets) -> None:
        """Let go on to the next rule what has come to several statements that write nothing and does not match all."""
        if entered is matching:
            return
        for written, packets in entered.items():
            stays = matching.get(written)
            add(here.onward, written, packets if stays is None else minus(packets, stays))

    def _filtered(self, here: _Here, place: int, sets: Sets, entered: Sets) -> tuple[Sets, Sets]:
        """Return what a statement lets go on in the rule, and what had entered it less what was dropped meanwhile."""
        statement = here.rule.statements[place]
        found: Sets = {}
        for written, packets in sets.items():
            if _counts(statement):
                gone = self._uncountable(here, place, written, packets)
                if gone.satisfiable():
                    entered = {**entered, written: minus(entered[written], gone)}
                    packets = minus(packets, gone)  # noqa: PLW2901 - the others are gone
            add(found, written, packets & self._condition(here, place, written))
        return found, entered

    def _written(self, here: _Here, statement: Statement, sets: Sets) -> Sets:
        """Return what a statement that writes lets go on in the rule."""
        found: Sets = {}
        for written, packets in sets.items():
            if isinstance(statement, Translate):
                self._translate(here, statement, written, packets, found)
                continue
            if isinstance(statement, Assign):
                matching = self.kernel.readable([Term(statement.field)] if statement.reads else [], self.at)
                after = _assigned(written, statement.field, statement.keep, statement.value)
            else:
                assert isinstance(statement, Divert)  # noqa: S101 - the last of the kinds
                matching = self._diverted(statement)
                after = replace(written.with_field(fields.TRANSPARENT, 0, 1), diverted=statement.port)
            add(found, after, packets & matching)
            add(here.onward, written, minus(packets, matching))
        return found

    def _uncountable(self, here: _Here, place: int, written: Written, packets: PacketSet) -> PacketSet:
        """Drop what belongs to nothing that could be counted (nft_connlimit), and return it."""
        gone = packets & self.kernel.space.later_fragments()
        if terms := getattr(here.rule.statements[place], "terms", ()):
            # Where the set has no room, nothing is counted.
            gone &= self.kernel.readable(terms, self.at) & self._condition(here, place, written)
        note(self.kernel.record.dropped, here.unit, gone)
        add(self.dropped, written, gone)
        return gone

    def _condition(self, here: _Here, place: int, written: Written) -> PacketSet:
        kernel, space = self.kernel, self.kernel.space
        statement = here.rule.statements[place]
        if isinstance(statement, Match):
            held = kernel.held(statement.terms, statement.collection, self.at, written)
            return minus(kernel.readable(statement.terms, self.at), held) if statement.negated else held
        assert isinstance(statement, Unknown)  # noqa: S101 - the last of the kinds
        return kernel.readable(statement.terms, self.at) & space.unknown(Chance(kernel.host, here.unit, place))

    def _diverted(self, statement: Divert) -> PacketSet:
        """Return the packets that a listener takes."""
        kernel, space = self.kernel, self.kernel.space
        if statement.family is not space.family:
            return space.false
        protocol = space.union([space.where(fields.PROTOCOL, each) for each in statement.protocols])
        return protocol & space.unknown(Listens(kernel.host, statement.port))

    def _translate(self, here: _Here, statement: Translate, written: Written, packets: PacketSet, found: Sets) -> None:
        for number, chosen in self._by_data(statement.terms, statement.collection, written).items():
            assert isinstance(number, int)  # noqa: S101 - the map holds numbers
            add(found, _assigned(written, statement.field, 0, number), packets & chosen)
        held = self.kernel.held(statement.terms, statement.collection, self.at, written)
        add(here.onward, written, minus(packets, held))

    def _ended(self, statement: Verdict | Dispatch, sets: Sets) -> Sets:
        """Return what a statement has a verdict for."""
        if isinstance(statement, Verdict):
            return sets
        found: Sets = {}
        for written, packets in sets.items():
            held = self.kernel.held(statement.terms, statement.collection, self.at, written)
            add(found, written, packets & held)
        return found

    def _verdicts(self, statement: Verdict | Dispatch, sets: Sets) -> dict[Verdict, Sets]:
        """Return sets by the verdict that a statement has for them; what a map has none for is in none."""
        if isinstance(statement, Verdict):
            return {statement: sets}
        found: dict[Verdict, Sets] = {}
        for written, packets in sets.items():
            for verdict, chosen in self._by_data(statement.terms, statement.collection, written).items():
                assert isinstance(verdict, Verdict)  # noqa: S101 - the map holds verdicts
                add(found.setdefault(verdict, {}), written, packets & chosen)
        return found

    def _by_data(
        self, terms: tuple[Term, ...], collection: Collection, written: Written
    ) -> dict[Verdict | int | None, PacketSet]:
        """Return the packets that a map has an element for, by what it holds for them."""
        readable = self.kernel.readable(terms, self.at)
        parts: dict[Verdict | int | None, list[PacketSet]] = {}
        for element, packets in zip(
            collection.elements, self.kernel.holding(terms, collection, self.at, written), strict=True
        ):
            parts.setdefault(element.data, []).append(packets)
        return {data: readable & self.kernel.space.union(sets) for data, sets in parts.items()}

    def _verdict(self, here: _Here, verdict: Verdict, sets: Sets) -> None:
        kernel = self.kernel
        if verdict.kind is VerdictKind.DROP:
            note(kernel.record.dropped, here.unit, together(kernel.space, sets))
            for written, packets in sets.items():
                add(self.dropped, written, packets)
            return
        if verdict.target is None:
            into = {VerdictKind.ACCEPT: self.accepted, VerdictKind.RETURN: here.back}.get(verdict.kind, here.onward)
        else:
            into = here.onward if verdict.kind is VerdictKind.JUMP else here.back
            sets = self.chain(kernel.ruleset.chains[here.chain.target(verdict.target)], sets)
        for written, packets in sets.items():
            add(into, written, packets)
