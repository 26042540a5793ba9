"""A packet that comes to a given statement: found by mending, one field at a time, what leads it elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from netpolicy.proof import fields
from netpolicy.proof.evaluate import Fate, Judgement, Packet, Step, evaluate, read
from netpolicy.proof.fields import Field
from netpolicy.proof.lookup import find
from netpolicy.proof.model import (
    Base,
    Chain,
    Dispatch,
    Divert,
    Match,
    Name,
    Rule,
    Ruleset,
    Statement,
    Term,
    Translate,
    Unknown,
    Value,
    Verdict,
    VerdictKind,
)
from netpolicy.proof.paths import Call, Path

_TRIALS, _FEW = 30, 8
"""Packets that are tried for one target: most take fewer than five, and fewer still where fields are pinned."""
_ALTERNATIVES = 6
"""Values that are tried of one field against one statement."""

_AUTHENTICATION = 51
_NO_OPTIONS = 5

Candidates = Mapping[Field, Sequence[int | str]]
Looking = Match | Dispatch | Translate


def unlimited(_rule: Rule, what: Unknown | Divert) -> bool:
    """Answer as where no limit is exceeded and sockets listen."""
    if isinstance(what, Divert):
        return True
    return " over " not in f" {what.text} " and "'inv': True" not in what.text and "inv True" not in what.text


@dataclass(slots=True)
class Seeker:
    """Finds packets that come to one statement of one rule by one path."""

    ruleset: Ruleset
    path: Path
    rule: Rule
    place: int
    """The statement's place in the rule; those before it must match."""
    candidates: Candidates
    """The values that a field may take; those without any stay as they are."""
    _probe: Ruleset = field(init=False)
    _target: Rule = field(init=False)
    _base: Base = field(init=False)

    def __post_init__(self) -> None:
        # With the statement replaced by a drop, a packet has come to it if and only if that is where it ends.
        statements = (*self.rule.statements[: self.place], Verdict(VerdictKind.DROP))
        self._target = replace(self.rule, statements=statements)
        chain = self.ruleset.chains[self.rule.chain]
        rules = tuple(self._target if each is self.rule else each for each in chain.rules)
        self._probe = Ruleset(
            {**self.ruleset.chains, chain.id: Chain(chain.id, chain.base, rules)}, self.ruleset.collections
        )
        base = self.ruleset.chains[self.path.base].base
        assert base is not None  # noqa: S101 - paths begin at base chains
        self._base = base

    def reach(self, packet: Packet, pinned: frozenset[Field] = frozenset()) -> Packet | None:
        """Return a packet that comes there, as close to `packet` as was found; None if none was.

        Args:
            packet: Where to begin.
            pinned: Fields that stay as they are.

        """
        aimed, settled = self._aimed(packet, pinned)
        found = self._search(aimed, settled, _FEW if pinned else _TRIALS)
        return found if found is not None or pinned else self._search(packet, pinned, _TRIALS)

    def _aimed(self, packet: Packet, pinned: frozenset[Field]) -> tuple[Packet, frozenset[Field]]:
        """Return a packet that each rule of the path takes, the last ones first, and the fields that this settles."""
        wanted = [(self._target, None), *((call.rule, call.key) for call in reversed(self.path.calls))]
        for rule, key in wanted:
            base = self.ruleset.chains[rule.chain].base or self._base
            for statement in rule.statements:
                if not isinstance(statement, Looking):
                    continue
                if not holds(statement, packet, base, key):
                    changed = self._changed(packet, statement, base, pinned, want=True, key=key)
                    packet = next(changed, packet)
                if holds(statement, packet, base, key) and not (isinstance(statement, Match) and statement.negated):
                    pinned |= {term.field for term in statement.terms}
        return packet, pinned

    def _search(self, packet: Packet, pinned: frozenset[Field], most: int) -> Packet | None:
        """Return a packet that comes there, mending one that may not, so many times at most."""
        seen: set[frozenset[tuple[Field, int | str]]] = set()
        stack: list[Iterator[Packet]] = [iter([packet])]
        trials = 0
        while stack and trials < most:
            tried = next(stack[-1], None)
            if tried is None:
                stack.pop()
                continue
            key = frozenset(tried.values.items())
            if key in seen:
                continue
            seen.add(key)
            trials += 1
            judgement = evaluate(self._probe, self.path.hooks, tried, unlimited)
            if judgement.fate is Fate.DROP and judgement.steps[-1].rule is self._target:
                return tried
            stack.append(self._mended(tried, judgement, pinned))
        return None

    def _mended(self, packet: Packet, judgement: Judgement, pinned: frozenset[Field]) -> Iterator[Packet]:
        """Yield packets that may go on where this one went astray."""
        steps = list(judgement.steps)
        wanted, after = self._astray(packet, steps)
        rule = wanted.rule if wanted else self._target
        # What ended its way: a rule that it met too early, unless it met the wanted one and did not match.
        for step in reversed(_not_left(after, rule)):
            if step.rule is not None and not (step.rule.chain == rule.chain and step.rule.number >= rule.number):
                for statement in reversed(step.rule.statements):
                    if isinstance(statement, Looking):
                        yield from self._changed(packet, statement, self._at(step), pinned, want=False)
        yield from self._matching(packet, rule, wanted.key if wanted else None, pinned)
        fell = next((step.chain for step in reversed(steps) if step.chain.base is not None), None)
        if fell is not None and fell.id != self.path.base:
            for each in accepting(self.ruleset, fell):
                yield from self._matching(packet, each, None, pinned)

    def _astray(self, packet: Packet, steps: Sequence[Step]) -> tuple[Call | None, Sequence[Step]]:
        """Return the first call of the path that was not made (None: all were), and the steps since the one before."""
        for call in self.path.calls:
            taken = next((n for n, step in enumerate(steps) if step.rule is call.rule), None)
            if taken is None or not self._led(call, packet):
                return call, steps
            steps = steps[taken + 1 :]
        return None, steps

    def _led(self, call: Call, packet: Packet) -> bool:
        """Tell whether a rule that matched has led into the chain that it must."""
        for statement in call.rule.statements:
            if isinstance(statement, Dispatch):
                values = [read(term, packet, self._base) for term in statement.terms]
                known = tuple(each for each in values if each is not None)
                element = find(statement.collection, known) if len(known) == len(values) else None
                if element is not None and isinstance(element.data, Verdict):
                    return element.data.target == call.target.name
        return True

    def _at(self, step: Step) -> Base:
        return step.chain.base or self._base

    def _matching(
        self, packet: Packet, rule: Rule, key: tuple[object, ...] | None, pinned: frozenset[Field]
    ) -> Iterator[Packet]:
        """Yield packets that a rule's first statement that does not hold does hold for."""
        base = self.ruleset.chains[rule.chain].base or self._base
        for statement in rule.statements:
            if isinstance(statement, Looking) and not holds(statement, packet, base, key):
                yield from self._changed(packet, statement, base, pinned, want=True, key=key)
                return

    def _changed(
        self,
        packet: Packet,
        statement: Looking,
        base: Base,
        pinned: frozenset[Field],
        *,
        want: bool,
        key: tuple[object, ...] | None = None,
    ) -> Iterator[Packet]:
        """Yield packets for which a statement matches, or does not."""
        if want and not (isinstance(statement, Match) and statement.negated):
            found = self._inside(packet, statement, base, pinned, key)
        elif not want and isinstance(statement, Match) and statement.negated:
            found = self._inside(packet, statement, base, pinned, None)
        else:
            found = self._outside(packet, statement, base, pinned)
        yield from found

    def _inside(
        self,
        packet: Packet,
        statement: Looking,
        base: Base,
        pinned: frozenset[Field],
        key: tuple[object, ...] | None,
    ) -> Iterator[Packet]:
        readable = dict(_conditions(statement.terms, packet))
        if any(each in pinned for each in readable):
            return
        for element in statement.collection.elements:
            if element.key is None or (key is not None and element.key != key):
                continue
            values: dict[Field, int | str] | None = dict(readable)
            for term, part in zip(statement.terms, element.key, strict=True):
                value = self._within(term, part, packet)
                if value is None or (value != packet[term.field] and term.field in pinned):
                    values = None
                    break
                if values is not None:
                    values[term.field] = value
            if values is not None:
                changed = altered(packet, values)
                if holding_values(statement, changed, base):
                    yield changed

    def _within(self, term: Term, part: Value, packet: Packet) -> int | str | None:
        """Return a value for which a term gives something within a part: the present one if it does."""
        present = packet[term.field]
        if isinstance(part, Name):
            names = (present, *self.candidates.get(term.field, ()))
            return next((each for each in names if isinstance(each, str) and each in part), None)
        assert isinstance(present, int)  # noqa: S101 - spans are of numbers
        if _read(term, present) in part:
            return present
        if term.mask is None and term.field in self.candidates:
            return (part.first << term.shift) | (present & ((1 << term.shift) - 1))
        numbers = (each for each in self.candidates.get(term.field, ()) if isinstance(each, int))
        return next((each for each in numbers if _read(term, each) in part), None)

    def _outside(self, packet: Packet, statement: Looking, base: Base, pinned: frozenset[Field]) -> Iterator[Packet]:
        for term in statement.terms:
            if term.field in pinned:
                continue
            found = 0
            for value in self.candidates.get(term.field, ()):
                changed = altered(packet, {term.field: value})
                if not holding_values(statement, changed, base):
                    yield changed
                    found += 1
                    if found >= _ALTERNATIVES:
                        break
        for term in statement.terms:
            if term.protocol is not None and fields.PROTOCOL not in pinned:
                other = fields.UDP if term.protocol != fields.UDP else fields.TCP
                yield altered(packet, {fields.PROTOCOL: other})


def _not_left(steps: Sequence[Step], wanted: Rule) -> Sequence[Step]:
    """Return steps without detours: calls of chains other than the wanted rule's from which the packet came back."""
    found: list[Step] = []
    for step in steps:
        if step.rule is not None and step.rule.chain != wanted.chain and _verdict(step) is VerdictKind.RETURN:
            if found and _verdict(found[-1]) is VerdictKind.JUMP:
                found.pop()
            continue
        found.append(step)
    return found


def _verdict(step: Step) -> VerdictKind | None:
    """Return the verdict that ends a step's rule, None if it has none or looks it up."""
    last = step.rule.statements[-1] if step.rule is not None and step.rule.statements else None
    return last.kind if isinstance(last, Verdict) else None


def accepting(ruleset: Ruleset, base: Chain) -> Iterator[Rule]:
    """Yield the rules that accept, of a base chain and of the chains that it leads to."""
    queue = [base.id]
    for chain in queue:
        for rule in ruleset.chains[chain].rules:
            verdicts = [each for each in rule.statements if isinstance(each, Verdict)]
            if any(each.kind is VerdictKind.ACCEPT for each in verdicts):
                yield rule
            targets = [ruleset.chains[chain].target(each.target) for each in verdicts if each.target is not None]
            queue.extend(each for each in targets if each not in queue)


def holds(statement: Statement, packet: Packet, base: Base, key: tuple[object, ...] | None = None) -> bool:
    """Tell whether a statement that looks something up matches, by the element with a key if one is given."""
    assert isinstance(statement, Looking)  # noqa: S101 - asked of no other
    inside = holding_values(statement, packet, base)
    if isinstance(statement, Match):
        readable = all(read(term, packet, base) is not None for term in statement.terms)
        return readable and inside is not statement.negated
    if not inside or key is None:
        return inside
    values = tuple(read(term, packet, base) for term in statement.terms)
    return all(value in part for value, part in zip(values, key, strict=True))  # type: ignore[operator]


def holding_values(statement: Looking, packet: Packet, base: Base) -> bool:
    """Tell whether what a statement looks up can be read and is there."""
    values = [read(term, packet, base) for term in statement.terms]
    known = tuple(each for each in values if each is not None)
    return len(known) == len(values) and find(statement.collection, known) is not None


def altered(packet: Packet, values: Mapping[Field, int | str]) -> Packet:
    """Return a packet with other values, and what follows from them."""
    following: dict[Field, int | str] = {}
    announced = values.get(fields.NEXT_HEADER)
    if isinstance(announced, int) and packet.family is fields.Family.IPV6:
        name = fields.WALKED.get(announced)
        if name is not None:
            following[fields.EXTENSIONS[name]] = 1
        elif announced not in fields.WALKED:
            following = {**dict.fromkeys(fields.EXTENSIONS.values(), 0), fields.PROTOCOL: announced}
    if values.get(fields.PROTOCOL, following.get(fields.PROTOCOL)) == fields.TCP != packet[fields.PROTOCOL]:
        following |= {fields.DATA_OFFSET: fields.BARE_OFFSET, fields.LENGTH: fields.bare_length(packet.family)}
    return consistent(packet.changed({**following, **values}))


def consistent(packet: Packet) -> Packet:
    """Return a packet whose fields fit each other: headers that announce each other, flags only of TCP."""
    values = dict(packet.values)
    if packet.number(fields.DATA_OFFSET) <= _NO_OPTIONS:
        values.update(dict.fromkeys(fields.TCP_OPTIONS.values(), 0))
    if packet.family is fields.Family.IPV6:
        present = [number for number, name in fields.WALKED.items() if name and values.get(fields.EXTENSIONS[name])]
        first = values.get(fields.NEXT_HEADER, 0)
        # An authentication header has no field of its own: it is there if it is announced.
        if first not in {*present, _AUTHENTICATION}:
            values[fields.NEXT_HEADER] = present[0] if present else values.get(fields.PROTOCOL, 0)
        if not values.get(fields.EXTENSIONS["frag"]):
            values[fields.LATER_FRAGMENT] = 0
    if values.get(fields.PROTOCOL) != fields.TCP:
        values.update(dict.fromkeys((fields.TCP_FLAGS, fields.DATA_OFFSET, *fields.TCP_OPTIONS.values()), 0))
    return Packet(packet.family, values)


def _conditions(terms: Sequence[Term], packet: Packet) -> Iterator[tuple[Field, int]]:
    """Yield what must be so that terms can be read."""
    for term in terms:
        if term.protocol is not None and packet[fields.PROTOCOL] != term.protocol:
            yield fields.PROTOCOL, term.protocol
        if term.transport and packet.later_fragment:
            yield (fields.FRAG_OFF if packet.family is fields.Family.IPV4 else fields.LATER_FRAGMENT), 0


def _read(term: Term, value: int) -> int:
    value >>= term.shift
    return value if term.mask is None else value & term.mask
