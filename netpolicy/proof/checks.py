"""What the kernel checks in a rule, from its own instructions, where nft 1.0.6 leaves it out of what it prints.

nft does not print a check of the family or the protocol that it takes another part of the rule to imply.  It takes
``icmp type`` to imply IPv4 even where the rule has no such check, leaves out ``meta l4proto icmp`` before
``th sport < 1024``, and ``ip6 nexthdr tcp`` before ``tcp dport 22``: none of these come back from the JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from netpolicy.proof import fields
from netpolicy.proof.fields import Family, Field
from netpolicy.proof.held import Expression, HeldRule
from netpolicy.proof.model import ChainId, Collection, Element, Match, Span, Statement, Term, Verdict, VerdictKind
from netpolicy.proof.netlink import attributes, number
from netpolicy.proof.terms import RefusedError

# linux/netfilter/nf_tables.h: attributes, operators and keys of expressions.
_META_REGISTER, _META_KEY = 1, 2
_PAYLOAD_REGISTER, _PAYLOAD_BASE, _PAYLOAD_OFFSET, _PAYLOAD_LENGTH = 1, 2, 3, 4
_CMP_REGISTER, _CMP_OPERATOR, _CMP_DATA, _DATA_VALUE = 1, 2, 3, 1
_EQUAL, _UNEQUAL, _LESS, _AT_MOST, _MORE, _AT_LEAST = range(6)
_NFPROTO, _L4PROTO = 15, 16
_NETWORK, _TRANSPORT = 1, 2
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


def checks(rules: Iterable[HeldRule]) -> dict[tuple[ChainId, int], Checks]:
    """Return what each rule checks, by chain and handle, from the kernel's instructions."""
    return {(rule.chain, rule.handle): _of(rule.chain.family, rule.expressions) for rule in rules}


@dataclass(frozen=True, slots=True)
class _Comparison:
    register: int
    operator: int
    value: bytes


def _of(table: str, code: Sequence[Expression]) -> Checks:
    compared = [_comparison(each) for each in code]
    pairs = list(zip(code, compared[1:], strict=False))
    metas = [(key, value[0]) for each, after in pairs for key, value in _meta(each, after)]
    families = {family for family in Family if (_NFPROTO, int(family)) in metas}
    protocols = {value for key, value in metas if key == _L4PROTO}
    next_headers: set[int] = set()
    seen = families if table == "inet" else {Family.IPV4 if table == "ip" else Family.IPV6}
    for offset, content in (found for each, after in pairs for found in _header(each, after)):
        for family in seen:
            place = _PLACE[family] - offset
            if 0 <= place < len(content):
                (protocols if family is Family.IPV4 else next_headers).add(content[place])
    return Checks(
        frozenset(families),
        frozenset(protocols),
        frozenset(next_headers),
        merged=_merged(compared, list(_ranges(compared))),
        split=any(_split(code, compared, place) for place in range(len(code))),
    )


def _comparison(each: Expression) -> _Comparison | None:
    if each.name != "cmp":
        return None
    value = dict(attributes(each.parts[_CMP_DATA])).get(_DATA_VALUE, b"")
    return _Comparison(number(each.parts[_CMP_REGISTER]), number(each.parts[_CMP_OPERATOR]), value)


def _meta(each: Expression, after: _Comparison | None) -> Iterator[tuple[int, bytes]]:
    """Yield the key and the value of a comparison of the family or the protocol."""
    if each.name == "meta" and _META_REGISTER in each.parts and after is not None and after.operator == _EQUAL:
        key = number(each.parts[_META_KEY])
        if key in {_NFPROTO, _L4PROTO} and number(each.parts[_META_REGISTER]) == after.register and after.value:
            yield key, after.value


def _header(each: Expression, after: _Comparison | None) -> Iterator[tuple[int, bytes]]:
    """Yield the offset and the value of a comparison of bytes of the network header."""
    if each.name != "payload" or _PAYLOAD_REGISTER not in each.parts or after is None or after.operator != _EQUAL:
        return
    if number(each.parts[_PAYLOAD_BASE]) == _NETWORK and number(each.parts[_PAYLOAD_REGISTER]) == after.register:
        yield number(each.parts[_PAYLOAD_OFFSET]), after.value[: number(each.parts[_PAYLOAD_LENGTH])]


def _ranges(compared: Sequence[_Comparison | None]) -> Iterator[int]:
    """Yield where comparisons with both ends of one range begin: of one register, one right after the other."""
    place = 0
    while place + 1 < len(compared):
        first, last = compared[place], compared[place + 1]
        place += 1
        if first is None or last is None or first.register != last.register:
            continue
        if (first.operator, last.operator) == (_AT_LEAST, _AT_MOST):
            yield place - 1
            place += 1


def _merged(compared: Sequence[_Comparison | None], ranges: Sequence[int]) -> bool:
    """Tell whether two other comparisons are left that nft prints as one range, of whatever they are."""
    inside = {*ranges, *(place + 1 for place in ranges)}
    left = [each.operator for place, each in enumerate(compared) if each is not None and place not in inside]
    return any(
        first in left and last in left[left.index(first) :] for first, last in ((_AT_LEAST, _AT_MOST), (_LESS, _MORE))
    )


def _split(code: Sequence[Expression], compared: Sequence[_Comparison | None], place: int) -> bool:
    """Tell whether two bytes of the transport header are compared with !=.

    nft prints it as not the type and not the code, if the protocol is ICMP.
    """
    each = code[place]
    if each.name != "payload" or _PAYLOAD_REGISTER not in each.parts:
        return False
    read = tuple(number(each.parts[part]) for part in (_PAYLOAD_BASE, _PAYLOAD_OFFSET, _PAYLOAD_LENGTH))
    following = place + 2 if code[place + 1 : place + 2] and code[place + 1].name == "bitwise" else place + 1
    after = compared[following] if following < len(code) else None
    return read == (_TRANSPORT, 0, 2) and after is not None and after.operator == _UNEQUAL


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
    for place_of, statement in enumerate(statements):
        if any(term.transport for term in getattr(statement, "terms", ())):
            return (*statements[:place_of], *hidden, *statements[place_of:])
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
