"""What people call addresses, ports and hours: nodes, segments, sites and services of a topology, where they fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, summarize_address_range
from zoneinfo import ZoneInfo

from netpolicy.proof import fields
from netpolicy.proof.boxes import Spans, joined, within
from netpolicy.proof.fields import Family
from netpolicy.proof.model import Span
from netpolicy.topology.model import Address, Segment, Topology, Transport

_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
_FROM_MONDAY = (1, 2, 3, 4, 5, 6, 0)
_DAY = 24 * 60 * 60
_WEEK = 7 * _DAY
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
_FEW_OUT = 4
"""So many addresses of a segment may be left out before it is not called by its name any more."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one topology; without one, numbers."""

    topology: Topology | None
    changed: frozenset[str] = frozenset()
    """Names that stand for something else in the other topology: they are told with their addresses."""
    _ends: dict[Address, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.topology is not None:
            self._ends.update(ends(self.topology))

    @property
    def timezone(self) -> str:
        """Return the zone that hours are told in."""
        return "UTC" if self.topology is None else self.topology.timezone

    def address(self, address: Address) -> str:
        """Return whose an address is, with the address if that does not follow."""
        name = self._ends.get(address)
        if name is None:
            return str(address)
        return f"{name} [{address}]" if name in self.changed else name

    def addresses(self, spans: Spans, family: Family) -> tuple[str, ...]:
        """Return names that make up a set of addresses, exactly; together they read well in a list."""
        rest, found = spans, []
        for name, whole in self._wholes(family):
            inside = within(rest, whole)
            out = subtracted(whole, rest)
            if inside and not out:
                found.append(name)
            elif inside and size(out) <= _FEW_OUT and size(whole) > 2 * _FEW_OUT:
                found.append(f"{name} but {', '.join(self._singles(out, family))}")
            else:
                continue
            rest = subtracted(rest, inside)
        return (*found, *self._singles(rest, family))

    def service(self, protocol: Spans | None, ports: Spans | None) -> str:
        """Return what a protocol and its ports are called."""
        if protocol is None:
            return "everything" if ports is None else f"ports {numbers(ports)}"
        which = [number for span in protocol for number in range(span.first, span.last + 1)]
        if len(which) > 1:
            return f"protocols {numbers(protocol)}" + ("" if ports is None else f", ports {numbers(ports)}")
        name = _PROTOCOLS.get(which[0], f"protocol {which[0]}")
        if which[0] in {fields.ICMP, fields.ICMPV6}:
            return name if ports is None else f"{name} {_controls(ports)}"
        if ports is None:
            return f"{name}, every port" if which[0] in {fields.TCP, fields.UDP} else name
        return ", ".join(self._ports(name, ports))

    def hours(self, spans: Spans) -> str:
        """Return seconds of the week in UTC as days and hours of the network."""
        zone = ZoneInfo(self.timezone)
        shift = zone.utcoffset(datetime(2024, 1, 7, tzinfo=zone)) or timedelta()
        by_hours: dict[tuple[int, int], list[int]] = {}
        for span in _around(spans, int(shift.total_seconds())):
            day, start = divmod(span.first, _DAY)
            by_hours.setdefault((start, span.last + 1 - day * _DAY), []).append(day)
        parts = [f"{_days(days)} {_clock(start)}-{_clock(end)}" for (start, end), days in by_hours.items()]
        return ", ".join(parts)

    def moments(self, spans: Spans) -> str:
        """Return seconds since 1970 as dates of the network."""
        zone = ZoneInfo(self.timezone)
        parts = []
        for span in spans:
            start = "" if span.first == 0 else f"from {datetime.fromtimestamp(span.first, zone):%Y-%m-%d %H:%M}"
            end = ""
            if span.last < (1 << fields.TIME.bits) - 1:
                end = f"before {datetime.fromtimestamp(span.last + 1, zone):%Y-%m-%d %H:%M}"
            parts.append(f"{start} {end}".strip())
        return ", ".join(parts)

    def _wholes(self, family: Family) -> Iterator[tuple[str, Spans]]:
        """Yield what has a name of its own, the largest first."""
        if self.topology is None:
            return
        segments = self.topology.segments.values()
        yield "every network", _prefixes(segments, family)
        for site in self.topology.sites.values():
            mine = [segment for segment in segments if segment.site == site.id]
            if len(mine) > 1:
                yield f"site {site.id}", _prefixes(mine, family)
        for segment in segments:
            spans = _prefixes([segment], family)
            if spans:
                yield f"segment {segment.id}", spans

    def _singles(self, spans: Spans, family: Family) -> Iterator[str]:
        """Yield nodes and prefixes."""
        kind = IPv4Address if family is Family.IPV4 else IPv6Address
        for span in spans:
            for prefix in summarize_address_range(kind(span.first), kind(span.last)):
                alone = prefix.num_addresses == 1
                yield self.address(prefix.network_address) if alone else str(prefix)

    def _ports(self, protocol: str, ports: Spans) -> Iterator[str]:
        rest = ports
        if self.topology is not None and protocol == Transport.TCP:
            for service in self.topology.services.values():
                own = joined(Span(each.first, each.last) for each in service.ports)
                if not subtracted(own, rest):
                    rest = subtracted(rest, own)
                    yield f"{service.id} ({protocol}/{numbers(own)})"
        for span in rest:
            name = self._forbidden(protocol, span)
            yield f"{protocol}/{numbers((span,))}" + (f" ({name})" if name else "")

    def _forbidden(self, protocol: str, ports: Span) -> str | None:
        forbidden = () if self.topology is None else self.topology.forbidden.values()
        for each in forbidden:
            for known in each.tcp if protocol == "tcp" else each.udp if protocol == "udp" else ():
                if ports.first in known and ports.last in known:
                    return each.id
        return None


def ends(topology: Topology) -> Iterator[tuple[Address, str]]:
    """Yield the addresses of nodes and firewalls with their names."""
    for firewall in topology.firewalls.values():
        for interface in firewall.interfaces:
            yield from ((address, f"{firewall.id} ({interface.name})") for address in interface.addresses)
    for node in topology.nodes.values():
        yield from ((address, node.id) for address in node.interface.addresses)


def moved(one: Topology, other: Topology) -> frozenset[str]:
    """Return the names of nodes and firewalls that have other addresses in another topology."""
    mine, theirs = (_by_name(topology) for topology in (one, other))
    return frozenset(name for name in mine.keys() & theirs.keys() if mine[name] != theirs[name])


def subtracted(spans: Spans, gone: Spans) -> Spans:
    """Return the numbers that are in the first only."""
    found = list(spans)
    for hole in gone:
        found = [
            part
            for span in found
            for part in (
                Span(span.first, min(span.last, hole.first - 1)),
                Span(max(span.first, hole.last + 1), span.last),
            )
            if part.first <= part.last
        ]
    return joined(found)


def size(spans: Spans) -> int:
    """Return how many numbers there are."""
    return sum(span.last - span.first + 1 for span in spans)


def _by_name(topology: Topology) -> dict[str, set[Address]]:
    found: dict[str, set[Address]] = {}
    for address, name in ends(topology):
        found.setdefault(name, set()).add(address)
    return found


def _prefixes(segments: Iterable[Segment], family: Family) -> Spans:
    return joined(
        Span(int(prefix.network_address), int(prefix.broadcast_address))
        for segment in segments
        for prefix in segment.prefixes
        if prefix.version == family.version
    )


def numbers(spans: Spans) -> str:
    """Return numbers and ranges of them."""
    return ", ".join(str(span.first) if span.first == span.last else f"{span.first}-{span.last}" for span in spans)


def _controls(spans: Spans) -> str:
    """Return types and codes of ICMP, or those that are left out, where they are fewer."""
    out = subtracted((Span(0, 0xFFFF),), spans)
    if len(out) < len(spans):
        return f"but {', '.join(map(_control, out))}"
    return ", ".join(map(_control, spans))


def _control(span: Span) -> str:
    """Return types and codes of ICMP."""
    if span.first == span.last:
        return f"type {span.first >> 8} code {span.first & 0xFF}"
    if span.first & 0xFF == 0 and span.last & 0xFF == 0xFF:
        first, last = span.first >> 8, span.last >> 8
        return f"type {first}" if first == last else f"types {first}-{last}"
    return f"type {span.first >> 8} code {span.first & 0xFF} to type {span.last >> 8} code {span.last & 0xFF}"


def _around(spans: Spans, shift: int) -> Spans:
    """Return seconds of the week in another zone; what goes over the end of the week ends after it."""
    moved_spans = [Span(span.first + shift, span.last + shift) for span in spans]
    turned = joined(
        part
        for span in moved_spans
        for turn in (-_WEEK, 0, _WEEK)
        for part in within((Span(span.first + turn, span.last + turn),), (Span(0, _WEEK - 1),))
    )
    if len(turned) > 1 and turned[0].first == 0 and turned[-1].last == _WEEK - 1:
        turned = (*turned[1:-1], Span(turned[-1].first, _WEEK + turned[0].last))
    return turned


def _days(days: list[int]) -> str:
    """Return days of the week, counted from Sunday, in the order from Monday."""
    places = sorted(_FROM_MONDAY.index(day) for day in days)
    runs = joined(Span(place, place) for place in places)
    names = [_DAYS[day] for day in _FROM_MONDAY]
    return ",".join(
        names[run.first] if run.first == run.last else f"{names[run.first]}-{names[run.last]}" for run in runs
    )


def _clock(seconds: int) -> str:
    """Return the time of day; more than a day after midnight is said with the days."""
    days, seconds = divmod(seconds, _DAY) if seconds > _DAY else (0, seconds)
    hours, minutes, rest = seconds // 3600, seconds // 60 % 60, seconds % 60
    text = f"{hours:02}:{minutes:02}" + (f":{rest:02}" if rest else "")
    return text if days <= 1 else f"{text} ({days} days later)"
