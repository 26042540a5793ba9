"""A ruleset, as far as it decides: what was read back from the kernel, in a form that says what each part means.

Three readers of it know nothing of each other: decision diagrams (:mod:`netpolicy.proof.symbolic`), an evaluator of
single packets (:mod:`netpolicy.proof.evaluate`), and z3 in the tests.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from netpolicy.proof.fields import Family, Field


@dataclass(frozen=True, slots=True)
class Span:
    """Numbers from `first` to `last`, both included."""

    first: int
    last: int

    def __contains__(self, value: int) -> bool:
        return self.first <= value <= self.last


@dataclass(frozen=True, slots=True)
class Name:
    """The name of an interface, or with ``*`` at its end all names that begin so."""

    text: str

    def __contains__(self, name: str) -> bool:
        return name.startswith(self.text[:-1]) if self.text.endswith("*") else name == self.text


Value = Span | Name


@dataclass(frozen=True, slots=True)
class Term:
    """Some bits of a field, and when there are none to read: the rule then does not match, whatever it asks for."""

    field: Field
    shift: int = 0
    """How many low bits are left out."""
    mask: int | None = None
    """Applied after that; None for all bits."""
    family: Family | None = None
    """Read from packets of this family only."""
    protocol: int | None = None
    """Read from packets of this transport protocol only."""
    transport: bool = False
    """Read from the transport header.  Of a fragment other than the first the kernel takes other bytes for one."""

    def __str__(self) -> str:
        part = "" if not self.shift and self.mask is None else f"[{self.shift}:{self.mask or ''}]"
        return f"{self.field}{part}"


class VerdictKind(enum.StrEnum):
    """How the judgement of a packet goes on."""

    ACCEPT = "accept"
    DROP = "drop"
    """Rejecting, too: the packet goes no further."""
    JUMP = "jump"
    GOTO = "goto"
    RETURN = "return"
    CONTINUE = "continue"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What ends a rule."""

    kind: VerdictKind
    target: str | None = None
    """The chain, of JUMP and GOTO."""

    def __str__(self) -> str:
        return f"{self.kind} {self.target}" if self.target else str(self.kind)


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a set or map."""

    key: tuple[Value, ...] | None
    """A value for each term of the key; None is what nft writes ``*``: whatever no other element has."""
    data: Verdict | int | None = None
    """Of a map."""
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Collection:
    """A set or map; elements of one do not overlap, as the kernel sees to."""

    name: str | None
    """None for one that stands in its rule."""
    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """Whether the terms, all of which can be read, are in a collection."""

    terms: tuple[Term, ...]
    collection: Collection
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """What a packet alone does not decide: a limit, a quota, a number of connections."""

    text: str
    terms: tuple[Term, ...] = ()
    """By which it is kept apart, in a set that fills by itself; where one cannot be read, it does not match."""

    @property
    def counts(self) -> bool:
        """Whether it is a ``ct count``, which drops what it cannot count."""
        return self.text.startswith("ct count")


@dataclass(frozen=True, slots=True)
class Dispatch:
    """A verdict map: the verdict of the element that holds the terms; without one the rule does not match."""

    terms: tuple[Term, ...]
    collection: Collection


@dataclass(frozen=True, slots=True)
class Assign:
    """New bits for a field."""

    field: Field
    keep: int
    """The bits that stay as they are."""
    value: int
    """The others."""
    reads: bool = False
    """Whether it takes the old value: where there is none to read, the rule does not match."""


@dataclass(frozen=True, slots=True)
class Translate:
    """A field becomes the number that a map gives for the terms; without one the rule does not match."""

    field: Field
    terms: tuple[Term, ...]
    collection: Collection


@dataclass(frozen=True, slots=True)
class Divert:
    """Handed to a local socket (``tproxy``); without one that listens the rule does not match."""

    family: Family
    protocols: tuple[int, ...]
    port: int | None


@dataclass(frozen=True, slots=True)
class Note:
    """What decides nothing: a log line, a counter."""

    counter: str | None = None
    """The name of a counter that is an object of its own."""
    segment: int | None = None
    """To how many bytes it lowers the segment size (MSS) that a TCP header offers, if it does; it never raises it."""


Statement = Match | Unknown | Dispatch | Assign | Translate | Divert | Note | Verdict


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; statements are judged in order, and the first that does not match ends it."""

    chain: ChainId
    number: int
    """Its place in the chain, from 1 on."""
    statements: tuple[Statement, ...]
    text: str
    """As nft prints it."""
    comment: str | None = None

    def __str__(self) -> str:
        return f"{self.chain} rule {self.number}: {self.text}"


@dataclass(frozen=True, slots=True, order=True)
class ChainId:
    """A chain, by its table."""

    family: str
    """``inet``, ``ip`` or ``ip6``."""
    table: str
    name: str

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"

    def sees(self, family: Family) -> bool:
        """Tell whether packets of a family come to chains of its table."""
        return self.family in {"inet", "ip" if family is Family.IPV4 else "ip6"}


class Hook(enum.StrEnum):
    """Where in the kernel a base chain is called."""

    PREROUTING = "prerouting"
    INPUT = "input"
    FORWARD = "forward"
    OUTPUT = "output"
    POSTROUTING = "postrouting"


@dataclass(frozen=True, slots=True)
class Base:
    """What makes a chain a base chain."""

    hook: Hook
    priority: int
    accepts: bool
    """Its policy."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Rules in order."""

    id: ChainId
    base: Base | None
    rules: tuple[Rule, ...]

    def target(self, name: str) -> ChainId:
        """Return the id of a chain of the same table."""
        return ChainId(self.id.family, self.id.table, name)


DEFRAGMENTATION, TRACKING = -400, -200
"""Priorities (linux/netfilter_ipv4.h): from there on there are no fragments any more; connections are known."""


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Everything that a network namespace's kernel holds."""

    chains: Mapping[ChainId, Chain]
    collections: Mapping[tuple[str, str, str], Collection]
    """The named ones by family, table and name."""

    def hook(self, hook: Hook, family: Family) -> tuple[Chain, ...]:
        """Return the base chains that packets of a family pass at a hook, by priority.

        Of equal ones the kernel calls the youngest first (``nf_hook_entries_grow``); here that is the last one listed.
        """
        found = [
            (chain.base.priority, -place, chain)
            for place, chain in enumerate(self.chains.values())
            if chain.base is not None and chain.base.hook is hook and chain.id.sees(family)
        ]
        return tuple(chain for _, _, chain in sorted(found, key=lambda each: each[:2]))

    def rules(self) -> Iterator[Rule]:
        """Yield every rule."""
        for chain in self.chains.values():
            yield from chain.rules

    def tracks(self, family: Family) -> bool:
        """Tell whether anything that sees a family asks about connections.

        Only then does the kernel track them, and put fragments together.
        """
        return any(
            _tracks(statement, family)
            for rule in self.rules()
            if rule.chain.sees(family)
            for statement in rule.statements
        )

    def names(self) -> frozenset[str]:
        """Return every interface's name, or beginning of names, that occurs."""
        return frozenset(
            value.text
            for rule in self.rules()
            for statement in rule.statements
            for element in getattr(statement, "collection", _NONE).elements
            for value in element.key or ()
            if isinstance(value, Name)
        )


_NONE = Collection(None, ())


def _tracks(statement: Statement, family: Family) -> bool:
    if isinstance(statement, Unknown):
        return statement.counts or any(term.field.name.startswith("ct ") for term in statement.terms)
    if isinstance(statement, Divert):
        return statement.family is family
    if isinstance(statement, Assign | Translate) and statement.field.name.startswith("ct "):
        return True
    return any(term.field.name.startswith("ct ") for term in getattr(statement, "terms", ()))
