"""What a ruleset does with one packet, rule by rule, as the kernel goes about it: without diagrams, for comparison.

It is also what explains: every rule that a packet has met is in the trace, with the element that matched.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from netpolicy.proof import fields
from netpolicy.proof.fields import STATES, Family, Field, State
from netpolicy.proof.lookup import find
from netpolicy.proof.model import (
    DEFRAGMENTATION,
    TRACKING,
    Assign,
    Base,
    Chain,
    Collection,
    Dispatch,
    Divert,
    Element,
    Hook,
    Match,
    Note,
    Rule,
    Ruleset,
    Statement,
    Term,
    Translate,
    Unknown,
    Verdict,
    VerdictKind,
)

ENTRY = {Hook.PREROUTING, Hook.OUTPUT}
"""Where packets are put together and connections looked up, between chains of these hooks."""
CONNECTED = {fields.DIRECTION, fields.ZONE, fields.CT_MARK}
WITHOUT = {State.INVALID, State.UNTRACKED}
_UNKNOWN_AT = {fields.OIF: {Hook.PREROUTING, Hook.INPUT}, fields.IIF: {Hook.OUTPUT}}
_MORE_FRAGMENTS_OR_OFFSET, _OFFSET = 0x3FFF, 0x1FFF
_FRAGMENT_HEADER = 44


@dataclass(frozen=True, slots=True)
class Packet:
    """A value for each field; those that are not given are 0, and names are empty."""

    family: Family
    values: Mapping[Field, int | str] = field(default_factory=dict)

    def __getitem__(self, wanted: Field) -> int | str:
        if wanted is fields.NFPROTO:
            return int(self.family)
        value = self.values.get(wanted)
        if value is None:
            return "" if wanted in {fields.IIF, fields.OIF} else 0
        return value

    def number(self, wanted: Field) -> int:
        """Return the value of a field that is not a name."""
        value = self[wanted]
        assert isinstance(value, int)  # noqa: S101 - for the type alone
        return value

    def changed(self, values: Mapping[Field, int | str]) -> Packet:
        """Return it with other values for some fields."""
        return Packet(self.family, {**self.values, **values})

    @property
    def fragment(self) -> bool:
        """Whether it is a part of another packet."""
        if self.family is Family.IPV4:
            return bool(self.number(fields.FRAG_OFF) & _MORE_FRAGMENTS_OR_OFFSET)
        known = self.number(fields.LATER_FRAGMENT) or self.number(fields.MORE_FRAGMENTS)
        return bool(self.number(fields.EXTENSIONS["frag"]) and known)

    @property
    def held(self) -> bool:
        """Whether it is kept until the others are there, once anything is put together."""
        return self.fragment and not (self.family is Family.IPV6 and self.number(fields.ODD_FRAGMENT))

    @property
    def later_fragment(self) -> bool:
        """Whether it is one without the transport header."""
        if self.family is Family.IPV4:
            return bool(self.number(fields.FRAG_OFF) & _OFFSET)
        return bool(self.number(fields.LATER_FRAGMENT))


_UNCOUNTABLE = Verdict(VerdictKind.DROP)
"""Of ``ct count``, for what belongs to nothing that could be counted (nft_connlimit)."""


class Fate(enum.StrEnum):
    """What becomes of a packet at a hook."""

    ACCEPT = "accept"
    DROP = "drop"
    HELD = "held"
    """A fragment, kept until the others are there."""
    EXPIRED = "expired"
    """Its hop limit (TTL) does not let it be forwarded."""


@dataclass(frozen=True, slots=True)
class Step:
    """One rule that matched, or the end of a base chain."""

    chain: Chain
    rule: Rule | None
    """None: the policy."""
    elements: tuple[tuple[str, Element], ...] = ()
    """Of named sets and maps in which the rule found the packet, with their names."""
    midway: bool = False
    """The packet was dropped before the rule's end."""

    def __str__(self) -> str:
        return str(self.rule) if self.rule else f"{self.chain.id} policy"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came of it."""

    fate: Fate
    packet: Packet
    """With the marks that rules have set."""
    steps: tuple[Step, ...]
    """The last one decided."""
    diverted: int | None = None
    """The port of the local socket that it was handed to."""


Oracle = Callable[[Rule, Unknown | Divert], bool]
"""Whether what a packet alone does not decide matches."""


def evaluate(ruleset: Ruleset, hooks: Sequence[Hook], packet: Packet, oracle: Oracle) -> Judgement:
    """Follow a packet through hooks, until one does not pass it on.

    Args:
        ruleset: Of the kernel.
        hooks: In the order in which it comes to them.
        packet: As it arrives, with what routing and connection tracking make of it.
        oracle: Is asked about limits, and whether a socket listens.

    """
    steps: list[Step] = []
    diverted: int | None = None
    zoned = False
    tracks = ruleset.tracks(packet.family)
    for hook in hooks:
        before = _before(hook, packet)
        if isinstance(before, Fate):
            return Judgement(before, packet, tuple(steps), diverted)
        packet = before
        for chain in ruleset.hook(hook, packet.family):
            assert chain.base is not None  # noqa: S101 - those of a hook are base chains
            if tracks and _defragmented(chain.base):
                if packet.held:
                    return Judgement(Fate.HELD, packet, tuple(steps))
                packet = _whole(packet)
            walk = _Walk(ruleset, chain.base, packet, oracle, steps, zoned=zoned)
            passed = walk.base(chain)
            zoned = walk.zoned
            packet, diverted = walk.packet, walk.diverted if walk.diverted is not None else diverted
            if not passed:
                return Judgement(Fate.DROP, packet, tuple(steps), diverted)
        if tracks:
            if packet.held:
                return Judgement(Fate.HELD, packet, tuple(steps))
            packet = _whole(packet)
    return Judgement(Fate.ACCEPT, packet, tuple(steps), diverted)


def _before(hook: Hook, packet: Packet) -> Packet | Fate:
    """Return a packet as the kernel brings it to a hook, or what becomes of it instead."""
    if hook is Hook.FORWARD:
        # The hop is counted before the chains are asked (ip_forward, ip6_forward).
        hops = packet.number(fields.TTL)
        return Fate.EXPIRED if hops <= 1 else packet.changed({fields.TTL: hops - 1})
    if hook is Hook.INPUT and packet.family is Family.IPV4 and packet.fragment:
        return Fate.HELD  # ip_local_deliver puts them together itself
    return packet


def _whole(packet: Packet) -> Packet:
    """Return a packet that is no fragment as it comes from where they are put together: without a Fragment header."""
    if packet.family is Family.IPV4 or not packet[fields.EXTENSIONS["frag"]] or packet.fragment:
        return packet
    changes: dict[Field, int | str] = {fields.EXTENSIONS["frag"]: 0, fields.LENGTH: packet.number(fields.LENGTH) - 8}
    if packet[fields.NEXT_HEADER] == _FRAGMENT_HEADER:
        changes[fields.NEXT_HEADER] = packet[fields.PROTOCOL]
    return packet.changed(changes)


def _defragmented(base: Base) -> bool:
    return base.hook not in ENTRY or base.priority > DEFRAGMENTATION


def read(term: Term, packet: Packet, base: Base) -> int | str | None:
    """Return what a term reads in a chain at `base`; None where there is nothing to read."""
    if term.family not in {None, packet.family} or term.protocol not in {None, packet[fields.PROTOCOL]}:
        return None
    if term.field is fields.STATE or term.field in CONNECTED:
        tracked = base.hook not in ENTRY or base.priority > TRACKING
        state = STATES[packet.number(fields.STATE)] if tracked else State.INVALID
        if term.field is fields.STATE:
            return STATES.index(state)
        if state in WITHOUT:
            return None
    if base.hook in _UNKNOWN_AT.get(term.field, ()):
        return ""
    value = packet[term.field]
    if isinstance(value, str):
        return value
    value >>= term.shift
    return value if term.mask is None else value & term.mask


@dataclass(slots=True)
class _Walk:
    """The way of a packet through one base chain."""

    ruleset: Ruleset
    at: Base
    packet: Packet
    oracle: Oracle
    steps: list[Step]
    diverted: int | None = None
    zoned: bool = False
    """Whether a zone was set."""

    def base(self, chain: Chain) -> bool:
        """Tell whether the chain passes it on."""
        verdict = self._chain(chain)
        if verdict is None:
            self.steps.append(Step(chain, None))
            return self.at.accepts
        return verdict is VerdictKind.ACCEPT

    def _chain(self, chain: Chain) -> VerdictKind | None:
        """Return ACCEPT or DROP, or None at the end of the chain."""
        for rule in chain.rules:
            found: list[tuple[str, Element]] = []
            verdict = self._rule(rule, found)
            if verdict is None:
                continue
            midway = verdict is _UNCOUNTABLE
            self.steps.append(Step(chain, rule, tuple(found), midway))
            if verdict.kind in {VerdictKind.ACCEPT, VerdictKind.DROP}:
                return verdict.kind
            if verdict.kind is VerdictKind.RETURN:
                return None
            if verdict.target is not None:
                final = self._chain(self.ruleset.chains[chain.target(verdict.target)])
                if final is not None or verdict.kind is VerdictKind.GOTO:
                    return final
        return None

    def _rule(self, rule: Rule, found: list[tuple[str, Element]]) -> Verdict | None:
        """Return the verdict of a rule; None if it does not match, CONTINUE if it has none."""
        for statement in rule.statements:
            if isinstance(statement, Verdict):
                return statement
            if (
                isinstance(statement, Unknown)
                and statement.counts
                and self.packet.later_fragment
                # Where a set has no room, nothing is counted.
                and (not statement.terms or self._statement(rule, statement, found))
            ):
                return _UNCOUNTABLE
            if isinstance(statement, Dispatch):
                element = self._find(statement.terms, statement.collection, found)
                return element.data if element is not None and isinstance(element.data, Verdict) else None
            if not self._statement(rule, statement, found):
                return None
        return Verdict(VerdictKind.CONTINUE)

    def _statement(self, rule: Rule, statement: Statement, found: list[tuple[str, Element]]) -> bool:
        if isinstance(statement, Match):
            readable = self._read(statement.terms) is not None
            there = self._find(statement.terms, statement.collection, found) is not None
            return readable and there is not statement.negated
        if isinstance(statement, Assign):
            if statement.reads and read(Term(statement.field), self.packet, self.at) is None:
                return False
            kept = self.packet.number(statement.field) & statement.keep
            self._write(statement.field, kept | statement.value)
        elif isinstance(statement, Translate):
            element = self._find(statement.terms, statement.collection, found)
            if element is None or not isinstance(element.data, int):
                return False
            self._write(statement.field, element.data)
        elif isinstance(statement, Unknown):
            return self._read(statement.terms) is not None and self.oracle(rule, statement)
        elif isinstance(statement, Divert):
            fits = self.packet.family is statement.family and self.packet[fields.PROTOCOL] in statement.protocols
            if not fits or not self.oracle(rule, statement):
                return False
            self.diverted = statement.port
            self.packet = self.packet.changed({fields.TRANSPARENT: 1})
        else:
            assert isinstance(statement, Note)  # noqa: S101 - the last of the kinds
        return True

    def _write(self, field: Field, value: int) -> None:
        if field is fields.ZONE:
            if self.zoned:
                return  # the first one stays (nft_ct_set_zone_eval)
            self.zoned = True
        self.packet = self.packet.changed({field: value})

    def _read(self, terms: tuple[Term, ...]) -> tuple[int | str, ...] | None:
        values = [read(term, self.packet, self.at) for term in terms]
        return None if None in values else tuple(each for each in values if each is not None)

    def _find(
        self, terms: tuple[Term, ...], collection: Collection, found: list[tuple[str, Element]]
    ) -> Element | None:
        values = self._read(terms)
        if values is None:
            return None
        element = find(collection, values)
        if element is not None and collection.name is not None:
            found.append((collection.name, element))
        return element
