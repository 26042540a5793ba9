"""What the kernel checks in a rule, from its own instructions, where nft 1.0.6 leaves it out of what it prints.

nft does not print a check of the family or the protocol that it takes another part of the rule to imply.  It takes
``icmp type`` to imply IPv4 even where the rule has no such check, leaves out ``meta l4proto icmp`` before
``th sport < 1024``, and ``ip6 nexthdr tcp`` before ``tcp dport 22``: none of these come back from the JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from netpolicy.proof import fields
from netpolicy.proof.fields import Family, Field
from netpolicy.proof.model import ChainId, Collection, Element, Match, Span, Statement, Term, Verdict, VerdictKind
from netpolicy.proof.terms import RefusedError

_RULE = re.compile(r"^(inet|ip|ip6) (\S+) (\S+) (\d+)(?: \d+)? *\n((?:  \[.*\n)*)", re.MULTILINE)
_META = re.compile(r"\[ meta load (nfproto|l4proto) => reg (\d+) \]\n  \[ cmp eq reg \2 0x([0-9a-f]{8}) \]")
_PAYLOAD = re.compile(
    r"\[ payload load (\d+)b @ network header \+ (\d+) => reg (\d+) \]\n  \[ cmp eq reg \3 ((?:0x[0-9a-f]{8} ?)+)\]"
)
_RANGE = re.compile(r"  \[ cmp gte reg (\d+) [^]]*\]\n  \[ cmp lte reg \1 [^]]*\]\n")
_MERGED = re.compile(r"\[ cmp gte [^]]*\]\n(?:.*\n)*  \[ cmp lte |\[ cmp lt [^]]*\]\n(?:.*\n)*  \[ cmp gt ")
"""What is left of such pairs when ranges are gone: nft prints two comparisons, of whatever, as one range."""
_SPLIT = re.compile(r"payload load 2b @ transport header \+ 0 => .*\n(?:  \[ bitwise .*\n)?  \[ cmp neq ")
"""Not two bytes: nft prints it as not the type and not the code, if the protocol is ICMP."""
_REJECTED = Verdict(VerdictKind.DROP)
_CONTROL = {fields.ICMP, 2, fields.ICMPV6}
_PLACE = {Family.IPV4: 9, Family.IPV6: 6}
"""Of the protocol's number in the network header."""


@dataclass(frozen=True, slots=True)
class Checks:
    """The comparisons with one number that a rule makes of family and protocol."""

    families: frozenset[Family] = frozenset()
    protocols: frozenset[int] = frozenset()
    """``meta l4proto``, or ``ip protocol``."""
    next_headers: frozenset[int] = frozenset()
    """``ip6 nexthdr``."""
    merged: bool = False
    """nft may print two comparisons as one range."""
    split: bool = False
    """nft may print one negated comparison as two."""


def checks(listing: str) -> dict[tuple[ChainId, int], Checks]:
    """Return what each rule checks, by chain and handle, from a listing with the kernel's instructions."""
    return {
        (ChainId(family, table, chain), int(handle)): _of(family, code)
        for family, table, chain, handle, code in _RULE.findall(listing)
    }


def _of(table: str, code: str) -> Checks:
    metas = [(key, int(value, 16)) for key, _, value in _META.findall(code)]
    families = {family for family in Family if ("nfproto", int(family)) in metas}
    protocols = {value for key, value in metas if key == "l4proto"}
    next_headers: set[int] = set()
    seen = families if table == "inet" else {Family.IPV4 if table == "ip" else Family.IPV6}
    for length, offset, _, words in _PAYLOAD.findall(code):
        content = b"".join(int(word, 16).to_bytes(4, "little") for word in words.split())
        for family in seen:
            place = _PLACE[family] - int(offset)
            if 0 <= place < int(length):
                (protocols if family is Family.IPV4 else next_headers).add(content[place])
    return Checks(
        frozenset(families),
        frozenset(protocols),
        frozenset(next_headers),
        merged=_MERGED.search(_RANGE.sub("", code)) is not None,
        split=_SPLIT.search(code) is not None,
    )


def with_checks(statements: Sequence[Statement], made: Checks, *, place: str) -> tuple[Statement, ...]:
    """Return a rule's statements with the checks that nft has not printed, before the first that they can belong to.

    Raises:
        RefusedError: There is none; or the rule lacks a check that what it reads stands on.

    """
    if made.merged:
        raise RefusedError("two comparisons that nft prints as one range", place)
    if made.split and sum(map(_is_negated_control, statements)) > 1:
        raise RefusedError("a comparison (!=) that nft prints as two", place)
    terms = [term for statement in statements for term in getattr(statement, "terms", ())]
    for term in terms:
        if term.protocol is not None and term.protocol not in made.protocols | made.next_headers:
            raise RefusedError(f"{term.field} without a check of the protocol", place)
    shown = {
        fields.NFPROTO: {int(term.family) for term in terms if term.family is not None}
        | _equal(statements, fields.NFPROTO),
        fields.PROTOCOL: {term.protocol for term in terms} | _equal(statements, fields.PROTOCOL),
        fields.NEXT_HEADER: _equal(statements, fields.NEXT_HEADER),
    }
    wanted = {fields.NFPROTO: made.families, fields.PROTOCOL: made.protocols, fields.NEXT_HEADER: made.next_headers}
    hidden = [_check(field, value) for field, values in wanted.items() for value in sorted(values - shown[field])]
    if not hidden:
        return tuple(statements)
    for number, statement in enumerate(statements):
        if any(term.transport for term in getattr(statement, "terms", ())):
            return (*statements[:number], *hidden, *statements[number:])
    if statements and statements[-1] == _REJECTED:
        return (*statements[:-1], *hidden, _REJECTED)  # "reject with icmp ..." is for one family
    raise RefusedError("a check that nft does not print", place)


def _is_negated_control(statement: Statement) -> bool:
    if not isinstance(statement, Match) or not statement.negated:
        return False
    return any(term.field is fields.SPORT and term.protocol in _CONTROL for term in statement.terms)


def _equal(statements: Sequence[Statement], field: Field) -> set[int]:
    return set(_equalities(statements, field))


def _equalities(statements: Sequence[Statement], field: Field) -> Iterator[int]:
    for statement in statements:
        if (
            isinstance(statement, Match)
            and not statement.negated
            and [each.field for each in statement.terms] == [field]
        ):
            for element in statement.collection.elements:
                for part in element.key or ():
                    if isinstance(part, Span) and part.first == part.last:
                        yield part.first


def _check(field: Field, value: int) -> Match:
    family = Family.IPV6 if field is fields.NEXT_HEADER else None
    return Match((Term(field, family=family),), Collection(None, (Element((Span(value, value),)),)))
