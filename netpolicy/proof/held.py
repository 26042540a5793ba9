"""What the kernel holds, as it tells over netlink: every object with all its attributes, none of them by way of text.

nft prints a ruleset for people, and leaves out what it has no word for. Whatever changes the meaning of rules without
being one stands here: an attribute, a flag, a statement or an object that the proof has no meaning for is refused
by its name, with its place.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from netpolicy.proof.model import Base, ChainId, Hook
from netpolicy.proof.netlink import attributes, number, text
from netpolicy.proof.terms import RefusedError

FAMILIES = {0: "unspec", 1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
MODELLED = {"inet", "ip", "ip6"}
_HOOKS = dict(enumerate((Hook.PREROUTING, Hook.INPUT, Hook.FORWARD, Hook.OUTPUT, Hook.POSTROUTING)))
"""By number (linux/netfilter.h)."""
_CHAIN_TYPES = {"filter", "route"}

# Attributes, linux/netfilter/nf_tables.h.
_TABLE = {1: "name", 2: "flags", 3: "use", 4: "handle", 6: "userdata", 7: "owner"}
_CHAIN = {1: "table", 2: "handle", 3: "name", 4: "hook", 5: "policy", 6: "use", 7: "type", 8: "counters"}
_CHAIN |= {10: "flags", 12: "userdata"}
_RULE = {1: "table", 2: "chain", 3: "handle", 4: "expressions", 5: "compat", 6: "position", 7: "userdata"}
_SET = {1: "table", 2: "name", 3: "flags", 4: "key type", 5: "key length", 6: "data type", 7: "data length"}
_SET |= {8: "policy", 9: "description", 11: "timeout", 12: "gc-interval", 13: "userdata", 15: "object type"}
_SET |= {16: "handle", 17: "expression", 18: "expressions", 19: "backend", 20: "count"}
_ELEMENTS = {1: "table", 2: "set", 3: "elements"}
_ELEMENT = {1: "key", 2: "data", 3: "flags", 4: "timeout", 5: "expires", 6: "userdata", 7: "expression"}
_ELEMENT |= {9: "object", 10: "key end", 11: "expressions"}
_OBJECT = {1: "table", 2: "name", 3: "type", 4: "data", 5: "use", 6: "handle", 8: "userdata"}
_FLOWTABLE = {1: "table", 2: "name"}

_TABLE_FLAGS = {1: "dormant", 2: "owner", 4: "persist"}
_CHAIN_FLAGS = {1: "base", 2: "offload", 4: "binding"}
_SET_FLAGS = {1: "anonymous", 2: "constant", 4: "interval", 8: "map", 16: "timeout", 32: "dynamic", 64: "object"}
_SET_FLAGS |= {128: "concatenation", 256: "expression"}
_PLAIN_SET = {"anonymous", "constant", "interval", "map", "concatenation", "expression"}
_OBJECT_TYPES = {1: "counter", 2: "quota", 3: "ct helper", 4: "limit", 5: "ct count", 6: "tunnel"}
_OBJECT_TYPES |= {7: "ct timeout", 8: "secmark", 9: "ct expectation", 10: "synproxy"}
_PLAIN_OBJECTS = {"counter", "quota", "limit"}
_COUNTING = {"counter", "last"}
"""Expressions of a set or element that never end a look-up."""
_EXPRESSIONS = {
    *(
        "bitwise",
        "byteorder",
        "cmp",
        "connlimit",
        "counter",
        "ct",
        "dynset",
        "exthdr",
        "immediate",
        "limit",
        "log",
        "lookup",
    ),
    *("meta", "objref", "payload", "quota", "range", "reject", "socket", "tproxy"),
}
"""That a rule may consist of; each is judged by what nft makes of it, and by its checks."""
_RULE_COMMENT = _TABLE_COMMENT = _CHAIN_COMMENT = _OBJECT_COMMENT = _ELEMENT_COMMENT = 0
_SET_COMMENT = 7
"""Types in user data (libnftnl/udata.h)."""

Attributes = Mapping[str, bytes]
Named = tuple[str, str, str]
"""A set or map by family, table and name."""


@dataclass(frozen=True, slots=True)
class Expression:
    """One instruction of a rule."""

    name: str
    parts: Mapping[int, bytes]
    """Its attributes, by number."""


@dataclass(frozen=True, slots=True)
class HeldRule:
    """A rule as the kernel runs it."""

    chain: ChainId
    handle: int
    expressions: tuple[Expression, ...]
    code: bytes
    """The same as it was told."""
    comment: str | None


@dataclass(slots=True)
class Held:
    """Everything that nf_tables of one network namespace holds."""

    tables: list[tuple[str, Attributes]] = field(default_factory=list)
    """With their families, as all that follows."""
    chains: list[tuple[str, Attributes]] = field(default_factory=list)
    rules: list[HeldRule] = field(default_factory=list)
    sets: list[tuple[str, Attributes]] = field(default_factory=list)
    elements: dict[Named, list[Attributes]] = field(default_factory=dict)
    objects: list[tuple[str, Attributes]] = field(default_factory=list)
    flowtables: list[tuple[str, Attributes]] = field(default_factory=list)


def decode(told: Mapping[str, Sequence[tuple[int, str]]]) -> Held:
    """Return what :mod:`netpolicy.proof.lister` has read.

    Raises:
        MalformedError: An answer of the kernel does not fit into itself.
        RefusedError: An object has an attribute that is not known here.

    """
    held = Held()
    for kind, names, into in (
        ("table", _TABLE, held.tables),
        ("chain", _CHAIN, held.chains),
        ("set", _SET, held.sets),
        ("object", _OBJECT, held.objects),
    ):
        into.extend((_family(family), _parts(kind, names, bytes.fromhex(body))) for family, body in told[kind])
    for family, body in told["flowtable"]:
        known = {_FLOWTABLE[at]: value for at, value in attributes(bytes.fromhex(body)) if at in _FLOWTABLE}
        held.flowtables.append((_family(family), known))
    held.rules.extend(_rule(_family(family), bytes.fromhex(body)) for family, body in told["rule"])
    for family, body in told["elements"]:
        parts = _parts("elements", _ELEMENTS, bytes.fromhex(body))
        name = (_family(family), text(parts["table"]), text(parts["set"]))
        known_elements = held.elements.setdefault(name, [])
        known_elements.extend(_parts("element", _ELEMENT, each) for _, each in attributes(parts.get("elements", b"")))
    return held


def _family(given: int) -> str:
    return FAMILIES.get(given, f"family {given}")


def _parts(kind: str, names: Mapping[int, str], content: bytes) -> Attributes:
    """Return attributes by name; 0 and those called PAD hold nothing."""
    found = {}
    for at, value in attributes(content):
        name = names.get(at)
        if name is not None:
            found[name] = value
        elif value.strip(b"\0"):
            raise RefusedError(f"attribute {at} of a {kind}", "")
    return found


def _rule(family: str, content: bytes) -> HeldRule:
    parts = _parts("rule", _RULE, content)
    chain = ChainId(family, text(parts["table"]), text(parts["chain"]))
    if "compat" in parts:
        raise RefusedError("a rule of iptables", str(chain))
    code = parts.get("expressions", b"")
    comment = _comment(parts, _RULE_COMMENT, f"a rule of {chain}")
    return HeldRule(chain, number(parts["handle"]), tuple(expressions(code)), code, comment)


def expressions(content: bytes) -> Iterator[Expression]:
    """Yield the instructions of a list."""
    for _, each in attributes(content):
        yield _expression(each)


@lru_cache(maxsize=1 << 14)
def _expression(content: bytes) -> Expression:
    """Return one instruction; most of them occur in many rules, of many firewalls, and in both loadings of each."""
    parts = dict(attributes(content))
    return Expression(text(parts[1]), dict(attributes(parts.get(2, b""))))


def _comment(parts: Attributes, kind: int, place: str) -> str | None:
    """Return the comment in user data.

    Raises:
        RefusedError: It has a character that no line can hold: what is printed must be what is there.

    """
    data, found = parts.get("userdata", b""), None
    while len(data) >= 2 and len(data) >= 2 + data[1]:
        if data[0] == kind:
            found = data[2 : 2 + data[1]].removesuffix(b"\0").decode(errors="surrogateescape")
            printable(found, f"the comment of {place}")
        data = data[2 + data[1] :]
    return found


def printable(given: str, place: str) -> None:
    """Refuse characters that change how text around them is read.

    Raises:
        RefusedError: There is one.

    """
    if not given.isprintable() or '"' in given:
        raise RefusedError(f"the text {given!r}", place)


def refuse_unmodelled(held: Held, claimed: Collection[tuple[str, str]] = ()) -> None:
    """Refuse what gives rules another meaning, and what the proof has no meaning for.

    Args:
        held: By the kernel.
        claimed: Tables, by family and name, that a theorem of their own is about.

    Raises:
        RefusedError: Something is not known here.

    """
    _names(held)
    for family, parts in held.tables:
        name, place = text(parts["name"]), f"table {family} {text(parts['name'])}"
        if family not in MODELLED and (family, name) not in claimed:
            raise RefusedError(f"family {family}", place)
        _only(parts, "flags", _TABLE_FLAGS, (), place)
        if "owner" in parts:
            raise RefusedError("owner", place)
        _comment(parts, _TABLE_COMMENT, place)
    _refuse_objects(held)
    for family, parts in held.chains:
        chain = ChainId(family, text(parts["table"]), text(parts["name"]))
        _only(parts, "flags", _CHAIN_FLAGS, ("base",), f"chain {chain}")
        _comment(parts, _CHAIN_COMMENT, f"chain {chain}")
        if family in MODELLED:
            base_of(chain, parts)
    for rule in held.rules:
        if rule.chain.family in MODELLED:
            _refuse_instructions(rule)


def _refuse_objects(held: Held) -> None:
    for family, parts in held.flowtables:
        raise RefusedError("flowtable", f"{family} {text(parts['table'])} {text(parts['name'])}")
    for family, parts in held.objects:
        place = f"{family} {text(parts['table'])} {text(parts['name'])}"
        kind = _OBJECT_TYPES.get(number(parts["type"]), f"object type {number(parts['type'])}")
        if kind not in _PLAIN_OBJECTS:
            raise RefusedError(kind, place)
        _comment(parts, _OBJECT_COMMENT, place)


def _names(held: Held) -> None:
    """Refuse names that nft could not write."""
    for kind, objects in (("table", held.tables), ("chain", held.chains), ("set", held.sets), ("object", held.objects)):
        for _, parts in objects:
            name = text(parts["name"])
            printable(name, f"the name of a {kind}")
            if not name or any(each in name for each in " {};#$@"):
                raise RefusedError(f"the name {name!r}", f"a {kind}")


def _only(parts: Attributes, key: str, names: Mapping[int, str], known: Collection[str], place: str) -> None:
    flags = number(parts.get(key, b""))
    for bit in range(flags.bit_length()):
        name = names.get(1 << bit, f"flag {1 << bit}")
        if flags >> bit & 1 and name not in known:
            raise RefusedError(f"flags {name}", place)


def base_of(chain: ChainId, parts: Attributes) -> Base | None:
    """Return where a chain is called.

    Raises:
        RefusedError: At a hook, on a device or as a type that is not known here.

    """
    if "hook" not in parts:
        return None
    hook = dict(attributes(parts["hook"]))
    kind = text(parts["type"])
    if kind not in _CHAIN_TYPES:
        raise RefusedError(f"type {kind}", str(chain))
    where = _HOOKS.get(number(hook[1]))
    if where is None:
        raise RefusedError("hook ingress" if number(hook[1]) == 5 else f"hook {number(hook[1])}", str(chain))
    if set(hook) - {1, 2}:
        raise RefusedError("a base chain of devices", str(chain))
    return Base(where, int.from_bytes(hook[2], "big", signed=True), number(parts["policy"]) == 1)


def _refuse_instructions(rule: HeldRule) -> None:
    for each in rule.expressions:
        if each.name not in _EXPRESSIONS:
            raise RefusedError(each.name, f"{rule.chain} handle {rule.handle}")
        if each.name == "objref" and 3 in each.parts:
            # Without an element for the packet the rule ends here: it is a comparison.
            raise RefusedError("a counter, limit or quota from a map", f"{rule.chain} handle {rule.handle}")


def anonymous(held: Held) -> set[Named]:
    """Return the sets that stand in their rules."""
    return {
        (family, text(parts["table"]), text(parts["name"]))
        for family, parts in held.sets
        if number(parts.get("flags", b"")) & 1
    }


def fickle(held: Held) -> dict[Named, tuple[str, ...]]:
    """Return the sets and maps whose answer is not decided by their elements' keys alone, and by what else."""
    found: dict[Named, tuple[str, ...]] = {}
    for family, parts in held.sets:
        name = (family, text(parts["table"]), text(parts["name"]))
        reasons = tuple(dict.fromkeys(_unreliable(family, parts, held.elements.get(name, ()))))
        if reasons:
            found[name] = reasons
    return found


def _unreliable(family: str, parts: Attributes, elements: Iterable[Attributes]) -> Iterator[str]:
    place = f"set {family} {text(parts['table'])} {text(parts['name'])}"
    _comment(parts, _SET_COMMENT, place)
    flags = number(parts.get("flags", b""))
    for bit in range(flags.bit_length()):
        name = _SET_FLAGS.get(1 << bit, f"flag {1 << bit}")
        if flags >> bit & 1 and name not in _PLAIN_SET:
            yield f"flags {name}"
    if number(parts.get("timeout", b"")):
        yield "timeout"
    yield from _stated(parts, "of a set")
    for element in elements:
        _comment(element, _ELEMENT_COMMENT, f"an element of {place}")
        for key in ("timeout", "expires", "object"):
            if key in element:
                yield f"{key} of an element"
        if number(element.get("flags", b"")) & ~3:
            yield f"flags {number(element['flags'])} of an element"
        yield from _stated(element, "of an element")


def _stated(parts: Attributes, whose: str) -> Iterator[str]:
    several = list(expressions(parts["expressions"])) if "expressions" in parts else []
    if "expression" in parts:
        several.append(_expression(parts["expression"]))
    yield from (f"{each.name} {whose}" for each in several if each.name not in _COUNTING)


def refuse_unfaithful(held: Held, again: Held) -> None:
    """Refuse a ruleset that becomes another if what nft lists of it is loaded: then the listing is not what it is.

    What passes with the traffic is not compared: values of counters and quotas, and elements that rules add. Anonymous
    sets are numbered by who came first, and families that are not modelled are not loaded again.

    Raises:
        RefusedError: Something differs; holds where.

    """
    before, after = _Lasting(held), _Lasting(again)
    for one, other in zip(before.rules, after.rules, strict=False):
        if one != other:
            raise RefusedError("what nft lists otherwise than it is", f"{one[0]}: rule {one[1]}")
    if len(before.rules) != len(after.rules):
        raise RefusedError("what nft lists otherwise than it is", "the rules")
    for name in ("tables", "chains", "sets", "objects"):
        if before.objects(name) != after.objects(name):
            raise RefusedError("what nft lists otherwise than it is", f"the {name}")
    mine, theirs = before.elements(), after.elements()
    for key in sorted({*mine, *theirs}):
        if mine.get(key, []) != theirs.get(key, []):
            raise RefusedError("what nft lists otherwise than it is", " ".join(key))


_PASSING = {"handle", "use"}
"""What is numbered anew with each loading."""
_SET_NAME = {"lookup": 1, "dynset": 1, "objref": 3}
"""The attribute that names a set (linux/netfilter/nf_tables.h)."""
_STATE = {"counter": {1, 2}, "quota": {4}, "last": {1, 2}, "connlimit": set[int]()}
"""Attributes that traffic changes."""
_DYNAMIC = 32

_Code = tuple[tuple[str, tuple[tuple[int, bytes], ...]], ...]


class _Lasting:
    """What stays of a ruleset whatever comes through it, in an order and with names of its own."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._names: dict[Named, bytes] = {}
        self._dynamic: set[Named] = set()
        unnamed = anonymous(held)
        self.rules: list[tuple[ChainId, int, _Code, str | None]] = []
        count: dict[ChainId, int] = {}
        chains = sorted(held.rules, key=lambda each: (each.chain.family, each.chain.table, each.chain.name))
        for rule in (each for each in chains if each.chain.family in MODELLED):
            for each in rule.expressions:
                at = _SET_NAME.get(each.name)
                if at is not None and at in each.parts:
                    name = (rule.chain.family, rule.chain.table, text(each.parts[at]))
                    if name in unnamed:
                        self._names.setdefault(name, f"__set{len(self._names)}".encode() + b"\0")
            count[rule.chain] = count.get(rule.chain, 0) + 1
            code = tuple(self._code(rule.chain.family, rule.chain.table, each) for each in rule.expressions)
            self.rules.append((rule.chain, count[rule.chain], code, rule.comment))
        for family, parts in held.sets:
            if number(parts.get("flags", b"")) & _DYNAMIC:
                self._dynamic.add((family, text(parts["table"]), text(parts["name"])))

    def _code(self, family: str, table: str, given: Expression) -> tuple[str, tuple[tuple[int, bytes], ...]]:
        passing, at = _STATE.get(given.name, set()), _SET_NAME.get(given.name)
        parts = {kind: value for kind, value in given.parts.items() if kind not in passing}
        if at is not None and at in parts:
            parts[at] = self._names.get((family, table, text(parts[at])), parts[at])
        return given.name, tuple(sorted(parts.items()))

    def objects(self, kind: str) -> list[tuple[str, list[tuple[str, bytes]]]]:
        """Return tables, chains, sets or objects."""
        found = []
        for family, parts in getattr(self._held, kind):
            if family not in MODELLED:
                continue
            known = {key: value for key, value in parts.items() if key not in _PASSING}
            if kind == "sets":
                name = (family, text(parts["table"]), text(parts["name"]))
                known["name"] = self._names.get(name, parts["name"])
                if name in self._dynamic:
                    known.pop("count", None)
            if kind == "objects":
                passing = _STATE.get(_OBJECT_TYPES.get(number(parts["type"]), ""), set())
                data = dict(attributes(parts.get("data", b"")))
                known["data"] = repr(sorted((at, value) for at, value in data.items() if at not in passing)).encode()
            found.append((family, sorted(known.items())))
        return sorted(found)

    def elements(self) -> dict[Named, list[list[tuple[str, bytes]]]]:
        """Return elements, set by set, but for those that rules add."""
        found = {}
        for name, elements in self._held.elements.items():
            if name[0] in MODELLED and name not in self._dynamic:
                own = (*name[:2], self._names.get(name, name[2].encode()).decode())
                found[own] = sorted(self._element(name, each) for each in elements)
        return found

    def _element(self, name: Named, given: Attributes) -> list[tuple[str, bytes]]:
        known = dict(given)
        for key in ("expression", "expressions"):
            if key in given:
                several = expressions(given[key]) if key == "expressions" else [_expression(given[key])]
                known[key] = repr([self._code(name[0], name[1], each) for each in several]).encode()
        return sorted(known.items())
