"""What the model says of a packet that arrives: the hooks it comes to, where it ends, and what is counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Address, ip_address

from pyroute2 import IPRoute

from netpolicy.proof import fields
from netpolicy.proof.evaluate import Fate, Judgement, Packet, Step, evaluate
from netpolicy.proof.fields import Family, Field
from netpolicy.proof.model import Divert, Element, Hook, Match, Note, Rule, Ruleset, Unknown, Verdict

FORWARDED, LOCAL, RELAYED, DROPPED, HELD, NOWHERE = "forwarded", "local", "relayed", "dropped", "held", "nowhere"

_MAIN, _LOCAL, _UNICAST = 254, 255, 1
_CLOCK = {fields.DAY, fields.HOUR, fields.TIME}
_DELIVERED = {2, 3, 4}
"""Types of routes that end here: local, broadcast, anycast (linux/rtnetlink.h)."""
_BOUND = re.compile(r"\b(?:rate|val) (\d+)")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the kernel's routing takes destinations, as read from it."""

    own: frozenset[tuple[Family, int]]
    routes: tuple[tuple[Family, int, int, str], ...]
    """Family, bits of the prefix, the prefix shifted down, and the interface; longest first."""

    def egress(self, family: Family, destination: int) -> str | None:
        """Return the interface for a destination that is not the firewall's own, None if there is no route."""
        for known, length, prefix, interface in self.routes:
            if known is family and destination >> (family.bits - length) == prefix:
                return interface
        return None


def read_place() -> Place:
    """Return what routing does in this network namespace."""
    own: set[tuple[Family, int]] = set()
    routes: list[tuple[Family, int, int, str]] = []
    with IPRoute() as route:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in route.get_links()}
        for family in Family:
            for each in route.get_routes(family=int(family)):
                length, target = each["dst_len"], each.get_attr("RTA_DST")
                if target is None:
                    continue
                number = int(ip_address(target))
                table = each.get_attr("RTA_TABLE") or each["table"]
                if table == _LOCAL and each["type"] in _DELIVERED and length == family.bits:
                    own.add((family, number))
                elif table == _MAIN and each["type"] == _UNICAST:
                    interface = names[each.get_attr("RTA_OIF")]
                    routes.append((family, length, number >> (family.bits - length), interface))
    return Place(frozenset(own), tuple(sorted(routes, key=lambda each: -each[1])))


@dataclass(frozen=True, slots=True)
class Forecast:
    """What must become of a packet."""

    end: str
    egress: str | None
    counters: tuple[tuple[str, int], ...]
    """Named counters and how much each rises."""
    steps: tuple[Step, ...]
    spends: tuple[tuple[Rule, int], ...]
    """Rules with a limit that it counts against, and how many may."""

    @property
    def key(self) -> tuple[str, str | None, tuple[tuple[str, int], ...]]:
        """What two packets with the same fate have in common."""
        return self.end, self.egress, self.counters

    def __str__(self) -> str:
        way = f" out of {self.egress}" if self.egress else ""
        counted = ", ".join(f"{name} by {count}" for name, count in self.counters) or "no counter"
        return f"{self.end}{way}, {counted}"


class Model:
    """The ruleset of one firewall, in its place, at an instant."""

    def __init__(self, ruleset: Ruleset, place: Place, interfaces: Sequence[str]) -> None:
        self.ruleset = ruleset
        self.place = place
        self.interfaces = tuple(interfaces)
        self.given: Mapping[Field, int | str] = {}
        self.set_clock(datetime.now(UTC))

    def set_clock(self, when: datetime) -> bool:
        """Judge as at an instant; tell whether any comparison with hours or days has another outcome than before."""
        before = self._open()
        midnight = when.replace(hour=0, minute=0, second=0, microsecond=0)
        self.given = {
            fields.DAY: when.isoweekday() % 7,
            fields.HOUR: int((when - midnight).total_seconds()),
            fields.TIME: int(when.timestamp()),
        }
        return self._open() != before

    def _open(self) -> list[bool]:
        """Return which comparisons with the time match."""
        return [
            self._holds(each, element)
            for rule in self.ruleset.rules()
            for each in rule.statements
            if isinstance(each, Match) and {term.field for term in each.terms} <= _CLOCK
            for element in each.collection.elements
        ]

    def _holds(self, match: Match, element: Element) -> bool:
        parts = zip(match.terms, element.key or (), strict=False)
        return all(self.given.get(term.field, 0) in part for term, part in parts)  # type: ignore[operator]

    def forecast(self, packet: Packet) -> Forecast:
        """Return what becomes of a packet that has come in by its ``iifname``."""
        asked: list[tuple[Rule, int]] = []

        def oracle(rule: Rule, what: Unknown | Divert) -> bool:
            if isinstance(what, Divert):
                return True
            if _decides(rule):
                bound = _BOUND.search(what.text)
                asked.append((rule, int(bound[1]) if bound else 1))
            return "inv True" not in what.text

        arriving = packet.changed({**self.given, fields.OIF: ""})
        first = evaluate(self.ruleset, (Hook.PREROUTING,), arriving, oracle)
        if first.fate is not Fate.ACCEPT:
            return _forecast(HELD if first.fate is Fate.HELD else DROPPED, None, (first,), asked)
        if first.diverted is not None or (packet.family, packet.number(fields.DADDR)) in self.place.own:
            second = evaluate(self.ruleset, (Hook.INPUT,), first.packet, oracle)
            end = RELAYED if first.diverted is not None else LOCAL
            return _forecast(end if second.fate is Fate.ACCEPT else DROPPED, None, (first, second), asked)
        egress = self.place.egress(packet.family, packet.number(fields.DADDR))
        if egress is None or not _forwards(packet):
            return _forecast(NOWHERE, None, (first,), asked)
        crossing = first.packet.changed({fields.OIF: egress})
        second = evaluate(self.ruleset, (Hook.FORWARD, Hook.POSTROUTING), crossing, oracle)
        passed = second.fate is Fate.ACCEPT
        return _forecast(FORWARDED if passed else DROPPED, egress if passed else None, (first, second), asked)


def _forecast(end: str, egress: str | None, judgements: Sequence[Judgement], asked: list[tuple[Rule, int]]) -> Forecast:
    steps = tuple(step for each in judgements for step in each.steps)
    counted = Counter(
        statement.counter
        for step in steps
        if step.rule is not None
        for statement in step.rule.statements
        if isinstance(statement, Note) and statement.counter is not None
    )
    return Forecast(end, egress, tuple(sorted(counted.items())), steps, tuple(asked))


def _forwards(packet: Packet) -> bool:
    """Tell whether the kernel forwards from such a source at all (RFC 4291, 2.5.2 and 2.5.6), before any hook."""
    if packet.family is Family.IPV4:
        return True
    source = IPv6Address(packet.number(fields.SADDR))
    return not (source.is_unspecified or source.is_link_local)


def _decides(rule: Rule) -> bool:
    """Tell whether more than a log line hangs on a rule's limit."""
    return any(not isinstance(each, Note | Unknown) for each in rule.statements) and (
        any(isinstance(each, Verdict) for each in rule.statements)
    )
