"""From libnftables' JSON to the model; what is not known is refused by its name, and never left out.

nft prints a rule without the checks that another part of it implies: ``tcp dport 22`` stands for two comparisons. They
come back here as conditions of a term. libnftables-json(5) has the form; that numbers are asked for instead of names
(:mod:`netpolicy.proof.read`) spares a copy of nft's tables of names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from netpolicy.proof.checks import checks, with_checks
from netpolicy.proof.fields import EXTENSIONS, TCP_OPTIONS, TRANSPARENT, Family
from netpolicy.proof.held import MODELLED, Held, Named, anonymous, base_of, fickle
from netpolicy.proof.model import (
    Assign,
    Chain,
    ChainId,
    Collection,
    Dispatch,
    Divert,
    Element,
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
from netpolicy.proof.netlink import text as name_of
from netpolicy.proof.order import refuse_unclear
from netpolicy.proof.terms import RefusedError, number, reversed_span, state_elements, term_of, value_of

_DECORATION = {"log", "counter"}
_UNKNOWN = {"limit", "quota", "ct count"}
_OBJECTS = {"metainfo", "table", "chain", "rule", "set", "map", "counter", "quota", "limit"}
_OF_FILLED = {"flags dynamic", "connlimit of an element", "limit of an element"}
"""What is so of a set that a rule fills: its elements are what the rule gives them."""
_KNOWN_OF_ELEMENTS = {"val", "comment", "counter"}
_PROTOCOLS = (6, 17)
_SEGMENT_SIZE = {"tcp option": {"name": "maxseg", "field": "size"}}


def parse(listing: Mapping[str, Any], texts: Mapping[tuple[ChainId, int], str], held: Held) -> Ruleset:
    """Return the model of a listing.

    Args:
        listing: What ``list ruleset`` gives as JSON, with numbers instead of names.
        texts: How nft prints each rule, by chain and handle: for people.
        held: The same ruleset as the kernel has it; :func:`netpolicy.proof.held.refuse_unmodelled` has seen it.

    Raises:
        RefusedError: It has something that the proof does not know.

    """
    objects = [(kind, each) for kind, each in _objects(listing) if kind == "metainfo" or each["family"] in MODELLED]
    _refuse_unlisted(objects, held)
    checked, filled, unreliable = checks(held.rules), _filled(objects), fickle(held)
    collections = _collections(objects, filled, unreliable, anonymous(held))
    rules: dict[ChainId, list[Rule]] = {}
    for kind, each in objects:
        if kind == "rule":
            chain = ChainId(each["family"], each["table"], each["chain"])
            text = texts.get((chain, each["handle"]), "")
            made = checked[chain, each["handle"]]
            sizes = {key: filled[key].size for key in filled}
            reader = _Reader(chain, f"{chain}: {text}", collections, unreliable, sizes, made.families)
            known = rules.setdefault(chain, [])
            statements = with_checks(tuple(reader.statements(each["expr"])), made, place=reader.place)
            known.append(Rule(chain, len(known) + 1, statements, text, each.get("comment")))
    chains = {}
    for family, parts in held.chains:
        if family in MODELLED:
            chain = ChainId(family, name_of(parts["table"]), name_of(parts["name"]))
            chains[chain] = Chain(chain, base_of(chain, parts), tuple(rules.get(chain, ())))
    ruleset = Ruleset(chains, collections)
    refuse_unclear(ruleset)
    return ruleset


def _collections(
    objects: Iterable[tuple[str, Any]],
    filled: Mapping[Named, _Filled],
    unreliable: Mapping[Named, tuple[str, ...]],
    nameless: Iterable[Named],
) -> dict[Named, Collection]:
    """Return the named sets and maps.

    Raises:
        RefusedError: One in a rule, or one that a rule fills, is decided by more than its keys or that rule.

    """
    for name in nameless:
        if name in unreliable:
            raise RefusedError(unreliable[name][0], f"a set in a rule of table {name[0]} {name[1]}")
    collections: dict[Named, Collection] = {}
    for kind, each in objects:
        if kind in {"set", "map"}:
            key = (each["family"], each["table"], each["name"])
            if key in filled:
                _refuse_other_elements(each, filled[key])
                for reason in unreliable.get(key, ()):
                    if reason not in _OF_FILLED:
                        raise RefusedError(f"{reason}, of a set that a rule fills", each["name"])
                collections[key] = Collection(each["name"], ())
            else:
                collections[key] = _named(each)
    return collections


def _objects(listing: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for listed in listing["nftables"]:
        ((kind, each),) = listed.items()
        if kind not in _OBJECTS:
            raise RefusedError(kind, str(each.get("name", "")))
        yield kind, each


@dataclass(frozen=True, slots=True)
class _Filled:
    """A set that a rule fills."""

    size: int
    statements: list[dict[str, Any]]
    """That each of its elements gets."""


def _filled(objects: list[tuple[str, Any]]) -> dict[tuple[str, str, str], _Filled]:
    sets = {(each["family"], each["table"], each["name"]): each for kind, each in objects if kind == "set"}
    found: dict[tuple[str, str, str], _Filled] = {}
    for kind, rule in objects:
        for statement in rule["expr"] if kind == "rule" else ():
            if not isinstance(statement, dict) or "set" not in statement:
                continue
            filling = statement["set"]
            key = (rule["family"], rule["table"], filling["set"][1:])
            if key in found:
                raise RefusedError(f"a set that two rules fill (@{key[2]})", f"{rule['table']} {rule['chain']}")
            if key not in sets or not isinstance(sets[key].get("size"), int):
                raise RefusedError(f"a set without a size that a rule fills (@{key[2]})", rule["chain"])
            found[key] = _Filled(sets[key]["size"], filling.get("stmt", []))
    return found


def _refuse_other_elements(given: Mapping[str, Any], filled: _Filled) -> None:
    """Refuse elements that are held to something else than what the rule would give them, or for some time only."""
    strange = set(given) - {"family", "name", "table", "type", "handle", "size", "elem", "flags", "comment"}
    if strange:
        raise RefusedError(f"{min(strange)} of a set that a rule fills", given["name"])
    wanted = {key: value for each in filled.statements for key, value in each.items()}
    for element in given.get("elem", ()):
        inside = element.get("elem") if isinstance(element, dict) else None
        if inside is None or {key: value for key, value in inside.items() if key != "val"} != wanted:
            raise RefusedError("an element with another limit than the rule that fills its set", given["name"])


def _refuse_unlisted(objects: Sequence[tuple[str, Any]], held: Held) -> None:
    """Refuse a listing that has not each rule, chain and set of the kernel, in its order.

    Raises:
        RefusedError: It has not.

    """
    rules = [
        (ChainId(each["family"], each["table"], each["chain"]), each["handle"])
        for kind, each in objects
        if kind == "rule"
    ]
    names = [(each["family"], each["table"], each["name"]) for kind, each in objects if kind in {"set", "map"}]
    wanted = {(rule.chain, rule.handle) for rule in held.rules if rule.chain.family in MODELLED}
    if set(rules) != wanted or len(rules) != len(wanted):
        raise RefusedError("rules that nft does not list", "")
    sets = {
        (family, name_of(parts["table"]), name_of(parts["name"])) for family, parts in held.sets if family in MODELLED
    } - anonymous(held)
    if set(names) != sets:
        raise RefusedError("sets that nft does not list", "")


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the rules of one chain."""

    chain: ChainId
    place: str
    collections: Mapping[tuple[str, str, str], Collection]
    fickle: Mapping[tuple[str, str, str], tuple[str, ...]]
    """Those whose answer more than their keys decides, and by what."""
    sizes: Mapping[tuple[str, str, str], int]
    """Of the sets that rules fill, in elements."""
    families: frozenset[Family]
    """That the rule checks for, in an ``inet`` table."""

    def statements(self, given: list[dict[str, Any]]) -> Iterator[Statement]:
        """Yield the statements of a rule."""
        for each in given:
            kind, value = next(iter(each.items())) if isinstance(each, dict) else (str(each).split()[0], None)
            if kind == "match":
                yield self._match(value)
            elif kind == "vmap":
                terms = self._terms(value["key"])
                yield Dispatch(terms, self._collection(value["data"], terms))
            elif kind == "mangle":
                yield self._mangle(value) if value["key"] != _SEGMENT_SIZE else self._segment(value, given)
            elif kind == "tproxy":
                yield self._divert(value)
            elif kind in _UNKNOWN or kind == "set":
                yield self._kept_apart(value) if kind == "set" else Unknown(_described(kind, value))
            elif kind in _DECORATION:
                yield Note(value if kind == "counter" and isinstance(value, str) else None)
            elif kind == "reject":
                yield Verdict(VerdictKind.DROP)
            else:
                verdict = _verdict({kind: value})
                if verdict is None:
                    raise RefusedError(kind, self.place)
                yield verdict

    def _kept_apart(self, given: Mapping[str, Any]) -> Unknown:
        """Return a limit of which each value of the terms has one of its own, in a set that the rule fills."""
        terms = self._terms(given["elem"])
        size = self.sizes[self.chain.family, self.chain.table, given["set"][1:]]
        (kind, value), *others = (next(iter(each.items())) for each in given.get("stmt", [{"nothing": {}}]))
        if given["op"] != "add" or kind not in {"limit", "ct count"} or others:
            raise RefusedError("a set that a rule fills with other than one limit or number of connections", self.place)
        by = " . ".join(map(str, terms))
        return Unknown(f"{_described(kind, value)} of each {by}, at most {size}", terms)

    def _match(self, given: Mapping[str, Any]) -> Match:
        operator, right = given["op"], given["right"]
        terms = self._terms(given["left"])
        if terms[0].field in TCP_OPTIONS.values() and not (operator == "==" and isinstance(right, bool)):
            raise RefusedError(f"{terms[0].field} by its value", self.place)  # only whether there is one is known
        if len(terms) == 1 and terms[0].field.name == "ct state":
            return self._state(terms, operator, right)
        if operator in {"in", "!"}:
            (term,) = terms
            bits = Term(term.field, term.shift, number(right), term.family, term.protocol, term.transport)
            return Match((bits,), Collection(None, (Element((value_of(bits, 0, self.place),)),)), operator == "in")
        if operator in {"<", ">", "<=", ">="}:
            (term,) = terms
            bound = value_of(term, right, self.place)
            return Match(terms, Collection(None, (Element((reversed_span(term, operator, bound, self.place),)),)))
        if operator not in {"==", "!="}:
            raise RefusedError(f"operator {operator}", self.place)
        collection = self._collection(right, terms)
        if terms[0].field is TRANSPARENT and _holds_zero(collection):
            if operator == "==":
                raise RefusedError("socket transparent 0", self.place)  # true of some sockets, but not without one
        elif terms[0].field is TRANSPARENT and operator == "!=":
            raise RefusedError("socket transparent != 1", self.place)
        return Match(terms, collection, operator == "!=")

    def _state(self, terms: tuple[Term, ...], operator: str, right: Any) -> Match:
        """Return the comparison of ``ct state``, of which the model knows states and not a mask of bits."""
        if isinstance(right, str) or (isinstance(right, dict) and "set" in right):
            return Match(terms, self._collection(right, terms), operator == "!=")
        if operator not in {"in", "!", "==", "!="}:
            raise RefusedError(f"ct state {operator}", self.place)
        elements = tuple(state_elements(number(right), exact=operator in {"==", "!="}))
        return Match(terms, Collection(None, elements), operator.startswith("!"))

    def _mangle(self, given: Mapping[str, Any]) -> Statement:
        (key,) = self._terms(given["key"])
        if key.field.name not in {"meta mark", "ct zone", "ct mark"} or key.mask is not None:
            raise RefusedError(f"{key.field} set", self.place)
        value = given["value"]
        if isinstance(value, dict) and "map" in value:
            terms = self._terms(value["map"]["key"])
            return Translate(key.field, terms, self._collection(value["map"]["data"], terms))
        keep, bits = self._arithmetic(key, value)
        return Assign(key.field, keep, bits, reads=isinstance(value, dict) and bool({"&", "|"} & set(value)))

    def _segment(self, given: Mapping[str, Any], rule: list[dict[str, Any]]) -> Note:
        """Return what lowers the segment size: it decides nothing if nothing stands behind it."""
        size = _integer(given["value"])
        if size is None or rule[-1].get("mangle") is not given:
            raise RefusedError("tcp option maxseg size set, amid a rule", self.place)
        return Note(segment=size)

    def _arithmetic(self, key: Term, value: Any) -> tuple[int, int]:
        """Return which bits of a field stay, and what the others become."""
        if isinstance(value, dict) and len(value) == 1:
            ((operator, operands),) = value.items()
            if operator in {"&", "|"} and len(operands) == 2:
                keep, bits = self._arithmetic(key, operands[0])
                operand = number(operands[1])
                return (keep & operand, bits & operand) if operator == "&" else (keep & ~operand, bits | operand)
            if self._terms(value) == (key,):
                return (1 << key.field.bits) - 1, 0
            raise RefusedError(f"{key.field} set {operator}", self.place)
        return 0, number(value)

    def _divert(self, given: Mapping[str, Any]) -> Divert:
        if "family" in given:
            family = Family.IPV4 if given["family"] == "ip" else Family.IPV6
        elif self.chain.family in {"ip", "ip6"}:
            family = Family.IPV4 if self.chain.family == "ip" else Family.IPV6
        else:
            raise RefusedError("tproxy for both families", self.place)
        port = given.get("port")
        if port is not None and not isinstance(port, int):
            raise RefusedError("tproxy to a computed port", self.place)
        return Divert(family, _PROTOCOLS, port)

    def _terms(self, given: Any) -> tuple[Term, ...]:
        if isinstance(given, dict) and "concat" in given:
            return tuple(self._term(each) for each in given["concat"])
        return (self._term(given),)

    def _term(self, given: Any) -> Term:
        term = term_of(given, self.place)
        if self.chain.family != "inet" or term.family is None or term.family in self.families:
            return term
        if term.field in EXTENSIONS.values():
            return term  # the kernel finds none in IPv4 by itself
        if term.protocol is None:
            raise RefusedError(f"{term.field} without a check of the family", self.place)
        return replace(term, family=None)

    def _collection(self, given: Any, terms: tuple[Term, ...]) -> Collection:
        if isinstance(given, str) and given.startswith("@"):
            key = (self.chain.family, self.chain.table, given[1:])
            if key in self.fickle:
                raise RefusedError(f"{self.fickle[key][0]} (@{key[2]})", self.place)
            return _typed(self.collections[key], terms, self.place)
        if isinstance(given, dict) and "set" in given:
            return _typed(Collection(None, tuple(_element(each) for each in given["set"])), terms, self.place)
        return Collection(None, (Element((value_of(terms[0], given, self.place),)),))


def _named(given: Mapping[str, Any]) -> Collection:
    """Return a set or map whose keys are not understood yet: that takes the terms that are looked up in it."""
    return Collection(given["name"], tuple(_element(each) for each in given.get("elem", ())))


def _element(given: Any) -> Element:
    data: Verdict | int | None = None
    if isinstance(given, list):
        given, held = given
        data = _verdict(held) if isinstance(held, dict) else _integer(held)
        if data is None:
            raise RefusedError("a map to neither verdicts nor numbers", "")
    comment = None
    if isinstance(given, dict) and "elem" in given:
        inside = given["elem"]
        for key in sorted(inside.keys() - _KNOWN_OF_ELEMENTS):
            raise RefusedError(f"{key} of an element", "")
        given, comment = inside["val"], inside.get("comment")
    if given == "*":
        return Element(None, data, comment)
    parts = given["concat"] if isinstance(given, dict) and "concat" in given else [given]
    return Element(tuple(parts), data, comment)


def _integer(given: Any) -> int | None:
    return given if isinstance(given, int) and not isinstance(given, bool) else None


def _typed(collection: Collection, terms: tuple[Term, ...], place: str) -> Collection:
    """Return a collection with keys as values of `terms`."""
    elements = []
    for each in collection.elements:
        key = each.key
        if key is not None:
            if len(key) != len(terms):
                raise RefusedError(f"a key of {len(key)} parts for {len(terms)} terms", place)
            key = tuple(value_of(term, part, place) for term, part in zip(terms, key, strict=True))
        elements.append(Element(key, each.data, each.comment))
    return Collection(collection.name, tuple(elements))


def _verdict(given: Mapping[str, Any]) -> Verdict | None:
    kind, value = next(iter(given.items()))
    if kind in {"accept", "drop", "return", "continue"}:
        return Verdict(VerdictKind(kind))
    if kind in {"jump", "goto"}:
        if value is None:
            raise RefusedError(f"{kind} to a chain without a name", "")
        return Verdict(VerdictKind(kind), value["target"])
    return None


def _holds_zero(collection: Collection) -> bool:
    return any(isinstance(part, Span) and 0 in part for each in collection.elements for part in each.key or ())


def _described(kind: str, value: Mapping[str, Any] | str) -> str:
    if isinstance(value, str):
        return f"{kind} {value}"
    return " ".join([kind, *(f"{name} {each}" for name, each in value.items())])
