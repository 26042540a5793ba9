"""Packets at the edges of every class that a ruleset distinguishes, made from the ruleset alone.

For each element of everything that is looked up, and each comparison, there are packets that come to that rule: with
the corners of the element, with one below and one above it in each field, with far values, with other protocols,
interfaces, states, flags.  Wrong rules, and a wrong model of right ones, differ from what is meant at such edges.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import islice, product

from netpolicy.proof import fields
from netpolicy.proof.evaluate import Packet
from netpolicy.proof.fields import STATES, Family, Field, State, bits_of
from netpolicy.proof.model import Dispatch, Element, Hook, Match, Name, Rule, Ruleset, Span, Term, Translate, Value
from netpolicy.proof.paths import Path, paths
from netpolicy.proof.reach import Seeker, altered, consistent

GIVEN = (fields.MARK, fields.CT_MARK, fields.ZONE, fields.TRANSPARENT, fields.DAY, fields.HOUR, fields.TIME)
"""What a sender has no say in: packets have 0 there, or what all of them are given."""

_PROTOCOLS = (fields.TCP, fields.UDP, 132, 47, 253)
_NEXT_HEADERS = (0, 43, 44, 50, 51, 59, 60, 135, 139, 140)
_FRAGMENTS = (0x2000, 0x0001, 0x2001, 0x4000, 0x8000, 0x1FFF)
_HOPS = (0, 1, 2, 64, 254, 255)
_HEADER_LENGTHS = (5, 6, 15)
_STATES = (State.NEW, State.ESTABLISHED, State.RELATED, State.INVALID, State.UNTRACKED)
_CONTROL = {Family.IPV4: (0, 3, 5, 8, 11), Family.IPV6: (1, 2, 3, 128, 129, 133, 134, 135, 136, 137, 143)}
_SYN, _ACK, _RST, _FIN = fields.SYN, fields.ACK, fields.RST, fields.FIN
_FLAGS = (_SYN, _SYN | _ACK, _ACK, _FIN, _RST, 0, _FIN | 0x28, _SYN | _FIN, _SYN | _RST, 0x3F, _SYN | 0xC0, _FIN | _ACK)
_CORNERS = 16
"""Of one element: all there are of four fields."""

Looking = Match | Dispatch | Translate
Values = Mapping[Field, int | str]


def witnesses(
    ruleset: Ruleset, family: Family, interfaces: Sequence[str], given: Mapping[Field, int | str] | None = None
) -> Iterator[Packet]:
    """Yield different packets of a family, always the same ones in the same order.

    Args:
        ruleset: Of one kernel.
        family: Of the packets.
        interfaces: The names that there are.
        given: What all packets have in common beside the fields of :data:`GIVEN`, which are 0 unless given here.

    """
    seen: set[frozenset[tuple[Field, int | str]]] = set()
    for packet in _Maker(ruleset, family, tuple(interfaces), dict(given or {})).packets():
        key = frozenset(packet.values.items())
        if key not in seen:
            seen.add(key)
            yield packet


class _Maker:
    """Makes the packets of one ruleset in one family."""

    def __init__(
        self, ruleset: Ruleset, family: Family, interfaces: tuple[str, ...], given: dict[Field, int | str]
    ) -> None:
        self._ruleset = ruleset
        self._family = family
        self._given = {**dict.fromkeys(GIVEN, 0), **given}
        self._interfaces = interfaces
        self._candidates = candidates(ruleset, family, interfaces)
        for each in self._given:
            self._candidates.pop(each, None)

    def packets(self) -> Iterator[Packet]:
        """Yield packets, some more than once."""
        for chain, known in paths(self._ruleset, self._family).items():
            for number, path in enumerate(known):
                rules = self._ruleset.chains[chain].rules
                entry = self._seeker(path, rules[0], 0).reach(self._plain(path)) if rules else None
                if entry is not None:
                    for rule in rules:
                        entry = yield from self._at_rule(path, rule, entry, first=number == 0)

    def _at_rule(self, path: Path, rule: Rule, base: Packet, *, first: bool) -> Generator[Packet, None, Packet]:
        """Yield packets that come to each statement of a rule, and past it; return one to begin with at the next."""
        for place, statement in enumerate(rule.statements):
            if not isinstance(statement, Looking):
                continue
            seeker = self._seeker(path, rule, place)
            found = seeker.reach(base)
            if found is None or any(term.family not in {None, self._family} for term in statement.terms):
                return found or base  # nothing comes past it
            base = found
            yield from self._around(seeker, statement, base, first=first)
        found = self._seeker(path, rule, len(rule.statements)).reach(base)
        if found is not None:
            yield found
            for values in self._oddities():
                yield self._changed(found, values)
        return base

    def _seeker(self, path: Path, rule: Rule, place: int) -> Seeker:
        return Seeker(self._ruleset, path, rule, place, self._candidates)

    def _around(self, seeker: Seeker, statement: Looking, base: Packet, *, first: bool) -> Iterator[Packet]:
        """Yield packets inside and beside each element of what a statement looks up."""
        yield base
        others = tuple(self._beside_all(statement))
        for element in statement.collection.elements:
            if element.key is None:
                continue
            inside: Packet | None = None
            for values in self._corners(statement.terms, element):
                corner = self._at(seeker, base, values)
                yield corner
                inside = inside or corner
            if inside is None:
                continue
            for values in self._beside(statement.terms, element):
                yield self._at(seeker, inside, values)
                yield self._changed(inside, values)
            for values in self._swaps(inside):
                yield self._changed(inside, values)
        for values in others:
            yield self._at(seeker, base, values)
        if first:
            for values in self._oddities():
                yield self._changed(base, values)

    def _at(self, seeker: Seeker, begin: Packet, values: Mapping[Field, int | str]) -> Packet:
        """Return a packet with some values that comes to the statement, or if none does, one with them anyway."""
        packet = self._changed(begin, values)
        return seeker.reach(packet, frozenset(values)) or packet

    def _changed(self, packet: Packet, values: Mapping[Field, int | str]) -> Packet:
        return altered(packet, {field: value for field, value in values.items() if field not in self._given})

    def _corners(self, terms: Sequence[Term], element: Element) -> Iterator[Values]:
        """Yield the first and last values of each part of a key, in every combination."""
        sides = [tuple(self._sides(term, part)) for term, part in zip(terms, element.key or (), strict=True)]
        for corner in islice(product(*sides), _CORNERS):
            found: dict[Field, int | str] = {}
            for term, value in zip(terms, corner, strict=True):
                found[term.field] = value
            if self._possible(found, terms):
                yield found

    def _sides(self, term: Term, part: Value) -> Iterator[int | str]:
        if isinstance(part, Name):
            yield from [each for each in self._interfaces if each in part] or [part.text.rstrip("*")]
        elif term.mask is not None:
            yield from [
                each
                for each in self._candidates.get(term.field, ())
                if isinstance(each, int) and ((each >> term.shift) & term.mask) in part
            ][:4]
        else:
            low = (1 << term.shift) - 1
            yield from dict.fromkeys((part.first << term.shift, (part.last << term.shift) | low))

    def _beside(self, terms: Sequence[Term], element: Element) -> Iterator[Values]:
        """Yield, for one field at a time, the values next to its part of a key."""
        for term, part in zip(terms, element.key or (), strict=True):
            if isinstance(part, Name):
                for name in self._interfaces:
                    if name not in part:
                        yield {term.field: name}
            elif term.mask is None:
                top = (1 << (bits_of(term.field, self._family) - term.shift)) - 1
                for value in (part.first - 1, part.last + 1):
                    if 0 <= value <= top and self._valid(term.field, value << term.shift):
                        yield {term.field: value << term.shift}
            else:
                for each in self._candidates.get(term.field, ()):
                    if isinstance(each, int) and ((each >> term.shift) & term.mask) not in part:
                        yield {term.field: each}

    def _beside_all(self, statement: Looking) -> Iterator[Values]:
        """Yield, for one field at a time, values that are far from what is looked up."""
        for term in statement.terms:
            values = self._candidates.get(term.field, ())
            for each in dict.fromkeys((*values[:1], *values[-1:])):
                yield {term.field: each}

    def _swaps(self, packet: Packet) -> Iterator[Values]:
        """Yield what else a packet with these ends could be."""
        control = fields.ICMP if self._family is Family.IPV4 else fields.ICMPV6
        for protocol in (*_PROTOCOLS, control):
            if protocol != packet[fields.PROTOCOL]:
                yield {fields.PROTOCOL: protocol}
        for name in self._interfaces:
            if name != packet[fields.IIF]:
                yield {fields.IIF: name}
        back = _back(packet)
        yield back
        for state in _STATES:
            yield {fields.STATE: STATES.index(state), fields.DIRECTION: fields.ORIGINAL}
        for state in (State.ESTABLISHED, State.RELATED):
            known = {fields.STATE: STATES.index(state), fields.DIRECTION: fields.REPLY}
            yield known
            yield {**back, **known}
        if packet[fields.PROTOCOL] == fields.TCP:
            for flags in _FLAGS:
                yield {fields.TCP_FLAGS: flags}

    def _oddities(self) -> Iterator[Values]:
        """Yield what can be odd about any packet."""
        for hops in _HOPS:
            yield {fields.TTL: hops}
        for flags in _FLAGS:
            yield {fields.PROTOCOL: fields.TCP, fields.TCP_FLAGS: flags}
        control = fields.ICMP if self._family is Family.IPV4 else fields.ICMPV6
        for kind in _CONTROL[self._family]:
            for code in (0, 1, 4):
                for hops in (64, 255):
                    values = {fields.PROTOCOL: control, fields.SPORT: kind << 8 | code, fields.TTL: hops}
                    yield values
                    yield {**values, fields.STATE: STATES.index(State.RELATED)}
        for protocol in _PROTOCOLS:
            yield {fields.PROTOCOL: protocol}
        if self._family is Family.IPV4:
            yield from ({fields.FRAG_OFF: each} for each in _FRAGMENTS)
            yield from ({fields.HEADER_LENGTH: each} for each in _HEADER_LENGTHS)
        else:
            yield from ({fields.NEXT_HEADER: each, **_extension(each)} for each in _NEXT_HEADERS)
            yield {**_extension(44), fields.NEXT_HEADER: 44, fields.LATER_FRAGMENT: 1}
            yield {**_extension(0), **_extension(44), fields.NEXT_HEADER: 0}

    def _valid(self, field: Field, value: int | str) -> bool:
        return field is not fields.STATE or (isinstance(value, int) and value < len(STATES))

    def _possible(self, values: Mapping[Field, int | str], terms: Sequence[Term]) -> bool:
        """Tell whether packets of this family can have such values in what the terms read."""
        if any(term.family not in {None, self._family} for term in terms):
            return False
        return values.get(fields.NFPROTO, int(self._family)) == int(self._family)

    def _plain(self, path: Path) -> Packet:
        """Return an ordinary packet: the beginning of a TCP connection."""
        chosen = {field: values[0] for field, values in self._candidates.items()}
        crossing = path.hooks[0] is Hook.PREROUTING
        chosen[fields.IIF] = self._interfaces[0] if crossing and self._interfaces else ""
        ends_here = Hook.INPUT in path.hooks or not self._interfaces
        chosen[fields.OIF] = "" if ends_here else self._interfaces[-1]
        return consistent(Packet(self._family, {**chosen, **self._given}))


def _back(packet: Packet) -> Values:
    """Return the ends of an answer."""
    swapped = ((fields.SADDR, fields.DADDR), (fields.SPORT, fields.DPORT), (fields.IIF, fields.OIF))
    return {a: packet[b] for pair in swapped for a, b in (pair, pair[::-1])}


def _extension(number: int) -> dict[Field, int | str]:
    name = fields.WALKED.get(number)
    return {fields.EXTENSIONS[name]: 1} if name else {}


def candidates(ruleset: Ruleset, family: Family, interfaces: Sequence[str]) -> dict[Field, tuple[int | str, ...]]:
    """Return, for each field of a packet, an ordinary value and then all at which the ruleset may change its mind."""
    v4 = family is Family.IPV4
    control = fields.ICMP if v4 else fields.ICMPV6
    found: dict[Field, dict[int | str, None]] = {
        fields.IIF: dict.fromkeys(interfaces),
        fields.OIF: dict.fromkeys(interfaces),
        fields.STATE: dict.fromkeys(STATES.index(each) for each in _STATES),
        fields.DIRECTION: {fields.ORIGINAL: None, fields.REPLY: None},
        fields.PROTOCOL: dict.fromkeys((*_PROTOCOLS, control)),
        fields.SADDR: {(0xC0000207 if v4 else 0x20010DB8 << 96 | 7): None},
        fields.DADDR: {(0xC0000208 if v4 else 0x20010DB8 << 96 | 8): None},
        fields.SPORT: dict.fromkeys((40000, *(each << 8 for each in _CONTROL[family]))),
        fields.DPORT: {40001: None},
        fields.TCP_FLAGS: dict.fromkeys(_FLAGS),
        fields.TTL: dict.fromkeys((64, 2, 1, 0, 255)),
        fields.DSCP: {0: None},
        fields.ECN: {0: None},
        fields.LENGTH: {fields.bare_length(family): None},
        fields.DATA_OFFSET: dict.fromkeys((fields.BARE_OFFSET, 4, 5, 15)),
        **{each: {0: None, 1: None} for each in fields.TCP_OPTIONS.values()},
        fields.PACKET_TYPE: {0: None},
    }
    if v4:
        found[fields.FRAG_OFF] = dict.fromkeys((0, *_FRAGMENTS))
        found[fields.HEADER_LENGTH] = dict.fromkeys(_HEADER_LENGTHS)
    else:
        found[fields.NEXT_HEADER] = dict.fromkeys((fields.TCP, *_NEXT_HEADERS))
        found[fields.LATER_FRAGMENT] = {0: None, 1: None}
        found.update({each: {0: None, 1: None} for each in fields.EXTENSIONS.values()})
    for term, span in _spans(ruleset, family):
        if term.field in found and term.field is not fields.STATE:
            top = (1 << bits_of(term.field, family)) - 1
            for value in (span.first, span.last, span.first - 1, span.last + 1):
                if 0 <= value << term.shift <= top:
                    found[term.field].setdefault(value << term.shift)
    return {each: tuple(values) for each, values in found.items()}


def _spans(ruleset: Ruleset, family: Family) -> Iterator[tuple[Term, Span]]:
    """Yield every span of numbers that packets of a family are compared with."""
    for rule in ruleset.rules():
        for statement in rule.statements:
            if isinstance(statement, Looking):
                for element in statement.collection.elements:
                    for term, part in zip(statement.terms, element.key or (), strict=False):
                        if isinstance(part, Span) and term.family in {None, family}:
                            yield term, part
