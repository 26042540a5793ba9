"""Packets for a ruleset: near everything that it compares with, aimed at one rule or at none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from conformance.modelled.plan import LISTENED
from conformance.modelled.settle import ARBITRARY
from netpolicy.proof import fields
from netpolicy.proof.evaluate import Packet
from netpolicy.proof.fields import STATES, Family, Field, bits_of
from netpolicy.proof.model import Dispatch, Match, Name, Rule, Ruleset, Span, Term, Translate, Value
from netpolicy.proof.witness import candidates

_LOCAL = {Family.IPV4: 0x0A040001, Family.IPV6: 0x20010DB8_0400 << 80 | 1}
_MARKS = (0, 0, 1, 2, 3, 256, 257)
_INTERFACES_OF_NONE = 0.12
"""Share of packets that the kernel sends itself."""


def points(ruleset: Ruleset, family: Family, interfaces: Sequence[str], count: int, random: Random) -> Iterator[Packet]:
    """Yield so many packets of a family.

    Args:
        ruleset: Of one kernel.
        family: Of the packets.
        interfaces: The names that there are.
        count: How many.
        random: The same one gives the same packets.

    """
    known = candidates(ruleset, family, interfaces)
    rules = [rule for rule in ruleset.rules() if rule.chain.sees(family) and rule.text != "counter"]
    for _ in range(count):
        values = {field: random.choice(several) for field, several in known.items() if random.random() < 0.45}
        packet = Packet(family, {**_ordinary(family, interfaces, random), **values})
        for rule in random.sample(rules, k=min(len(rules), random.choice((0, 1, 1, 2)))):
            packet = _aimed(packet, rule, random, interfaces)
        yield packet


def _ordinary(family: Family, interfaces: Sequence[str], random: Random) -> dict[Field, int | str]:
    """Return a packet without oddities."""
    there = random.choice((ARBITRARY[family], ARBITRARY[family], _LOCAL[family], 0x0A010203, 0x08080808, 0xC0A80114))
    if family is Family.IPV6 and there not in {_LOCAL[family], ARBITRARY[family]}:
        there = 0x20010DB8_0100 << 80 | there
    here = random.choice((0x0A000007, 0xC0A80409, 0xAC100909))
    return {
        fields.IIF: "" if random.random() < _INTERFACES_OF_NONE else random.choice(interfaces),
        fields.OIF: random.choice(("", "", *interfaces)),
        fields.PROTOCOL: random.choice((6, 6, 17, 17, 1 if family is Family.IPV4 else 58, 132, 1, 58, 2, 50)),
        fields.SADDR: here if family is Family.IPV4 else 0x20010DB8_0200 << 80 | here,
        fields.DADDR: there,
        fields.SPORT: random.choice((40000, 0x0800, 0x0000, 0x0300, 0x8000, 0x8100, 0x0100, 0x8700)),
        fields.DPORT: random.choice((22, 80, 443, 53, *LISTENED)),
        fields.TCP_FLAGS: random.choice((fields.SYN, fields.SYN, fields.ACK)),
        fields.TTL: 64,
        fields.LENGTH: 60,
        fields.HEADER_LENGTH: 5,
        fields.MARK: random.choice(_MARKS),
        fields.CT_MARK: random.choice(_MARKS),
        fields.STATE: random.randrange(len(STATES)),
        fields.DIRECTION: random.randrange(2),
        fields.ODD_FRAGMENT: random.randrange(2),
        fields.MORE_FRAGMENTS: random.randrange(2),
        fields.PACKET_TYPE: random.choice((0, 0, 0, 0, 1, 2)),
    }


def _aimed(packet: Packet, rule: Rule, random: Random, interfaces: Sequence[str]) -> Packet:
    """Return a packet that a rule's comparisons hold for, or that is just beside one of them."""
    for statement in rule.statements:
        if not isinstance(statement, Match | Dispatch | Translate):
            continue
        keyed = [element.key for element in statement.collection.elements if element.key is not None]
        if not keyed or random.random() < 0.15:
            continue
        changes: dict[Field, int | str] = {}
        for term, part in zip(statement.terms, random.choice(keyed), strict=True):
            changes[term.field] = _value(term, part, packet, random, interfaces)
            if term.protocol is not None:
                changes.setdefault(fields.PROTOCOL, term.protocol)
        packet = packet.changed(changes)
    return packet


def _value(term: Term, part: Value, packet: Packet, random: Random, interfaces: Sequence[str]) -> int | str:
    if isinstance(part, Name):
        return random.choice([each for each in interfaces if each in part] or list(interfaces))
    if term.field is fields.NFPROTO:
        return int(packet.family)
    assert isinstance(part, Span)  # noqa: S101 - the other kind of value
    bits = bits_of(term.field, packet.family)
    inside = random.randint(part.first, max(part.first, part.last))
    value = random.choice((part.first, part.first, part.last, part.last + 1, part.first - 1, inside))
    value = max(0, min(value, (1 << bits - term.shift) - 1))
    if term.field is fields.STATE:
        return min(value, len(STATES) - 1)
    old = packet.number(term.field)
    keep = (1 << term.shift) - 1
    if term.mask is not None:
        keep |= ((1 << bits) - 1) & ~(term.mask << term.shift)
    return (old & keep) | ((value << term.shift) & ~keep & ((1 << bits) - 1))
