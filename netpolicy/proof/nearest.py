"""The flow that comes nearest to permitting a packet, and what differs, field by field."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from zoneinfo import ZoneInfo

from netpolicy.proof import fields
from netpolicy.proof.fields import ACK, FIN, RST, SYN, State
from netpolicy.proof.question import Question
from netpolicy.topology.ends import End, EndGroup, flow_groups, select_nodes
from netpolicy.topology.model import Address, Firewall, Flow, Node, Topology, Window

_FEW = 4
_NEW_BITS = FIN | SYN | RST | ACK
_WEIGHTS = {
    "effect": 1,
    "hours": 1,
    "flags": 1,
    "state": 1,
    "protocol": 3,
    "port": 3,
    "to": 4,
    "from": 4,
    "direction": 3,
    "site": 2,
}
"""How far each field is from what is permitted; ends are further than ports."""


@dataclass(frozen=True, slots=True)
class Differs:
    """One field that keeps a flow from permitting a packet."""

    field: str
    is_now: str
    instead_of: str

    def __str__(self) -> str:
        return f"{self.field}: {self.is_now} instead of {self.instead_of}"


@dataclass(frozen=True, slots=True)
class Near:
    """A flow, and all that differs."""

    flow: Flow
    differs: tuple[Differs, ...]

    @property
    def distance(self) -> int:
        """Return how much that is."""
        return sum(_WEIGHTS[each.field] for each in self.differs)


def nearest_flows(topology: Topology, question: Question, most: int = 3) -> list[Near]:
    """Return the flows that differ least, the nearest first; of equals those that stand first in the topology.

    Args:
        topology: With the flows.
        question: The packet.
        most: So many at most.

    """
    source, destination = _at(topology, question.source), _at(topology, question.destination)
    port = question.packet.number(fields.SPORT if question.reply else fields.DPORT)
    asker, asked = (destination, source) if question.reply else (source, destination)
    found = [
        (near.distance, _ports_away(topology, flow, port), place, near)
        for place, flow in enumerate(topology.flows.values())
        for near in (_near(topology, flow, question, asker, asked),)
    ]
    return [near for _, _, _, near in sorted(found, key=lambda each: each[:3])[:most]]


def _near(
    topology: Topology, flow: Flow, question: Question, source: End | Address, destination: End | Address
) -> Near:
    straight = tuple(_ends(topology, flow, source, destination))
    turned = tuple(_ends(topology, flow, destination, source))
    if not turned and straight and not question.reply:
        said = f"{_name(source)} asks {_name(destination)}"
        straight = (Differs("direction", said, f"{_name(destination)} asks {_name(source)}"),)
    differs = (
        *straight,
        *_transport(topology, flow, question),
        *_connection(question),
        *_time(topology, flow, question),
    )
    return Near(flow, differs)


def _ends(topology: Topology, flow: Flow, source: End | Address, destination: End | Address) -> Iterator[Differs]:
    groups = list(flow_groups(topology, flow))
    for group in groups:
        if _has(group.sources, source) and _has(group.destinations, destination) and _pairs(group, source, destination):
            return
    cut_off = [_cut_off(topology, end) for end in (source, destination)]
    if any(cut_off) and _site(source) != _site(destination):
        name = next(each for each in cut_off if each)
        yield Differs("site", f"{name}, which is not connected (不接続団体),", "a connected one")
        if _has(select_nodes(topology, flow.sources), source):
            return
    towards = [end for group in groups if _has(group.sources, source) for end in _others(group, source)]
    if towards:
        yield Differs("to", _name(destination), _one_of(towards))
        return
    sources = [
        end
        for group in groups
        if _has(group.destinations, destination)
        for end in group.sources
        if end is not destination
    ]
    yield Differs("from", _name(source), _one_of(sources or [end for group in groups for end in group.sources]))
    if not sources:
        yield Differs("to", _name(destination), _one_of([end for group in groups for end in group.destinations]))


def _transport(topology: Topology, flow: Flow, question: Question) -> Iterator[Differs]:
    packet = question.packet
    service = topology.services[flow.service]
    protocol = packet.number(fields.PROTOCOL)
    wanted = f"{service.id} (tcp/{', '.join(map(str, service.ports))})"
    if protocol != fields.TCP:
        name = {1: "icmp", 17: "udp", 58: "icmpv6"}.get(protocol, str(protocol))
        yield Differs("protocol", name, wanted)
        return
    port = packet.number(fields.SPORT if question.reply else fields.DPORT)
    if not any(port in ports for ports in service.ports):
        yield Differs("port", str(port), wanted)


def _connection(question: Question) -> Iterator[Differs]:
    if question.packet[fields.PROTOCOL] != fields.TCP:
        return
    flags = question.packet.number(fields.TCP_FLAGS)
    if question.state is State.NEW and flags & _NEW_BITS != SYN:
        yield Differs("flags", _flags(flags), "syn alone, which begins a connection")
    if question.state not in {State.NEW, State.ESTABLISHED}:
        yield Differs("state", question.state.name.lower(), "new or established")


def _time(topology: Topology, flow: Flow, question: Question) -> Iterator[Differs]:
    at = question.at.astimezone(ZoneInfo(topology.timezone))
    if flow not in topology.effective_flows():
        yield Differs("effect", f"the topology's day {topology.as_of}", f"{_period(flow)}")
    elif flow.effective_until is not None and at.date() > flow.effective_until:
        yield Differs("effect", f"{at:%Y-%m-%d}", _period(flow))
    if flow.limits.windows and not any(_open(window, at) for window in flow.limits.windows):
        yield Differs("hours", f"{at:%a %H:%M}", " or ".join(map(_window, flow.limits.windows)))


def _open(window: Window, at: datetime) -> bool:
    """Tell whether a window is open; it may have begun the day before."""
    for days in (0, 1):
        begun = (at - timedelta(days=days)).date()
        start = datetime.combine(begun, window.start, tzinfo=at.tzinfo)
        end = datetime.combine(begun, window.end, tzinfo=at.tzinfo)
        if window.end <= window.start:
            end += timedelta(days=1)
        if begun.weekday() in window.days and start <= at < end:
            return True
    return False


def _window(window: Window) -> str:
    days = [day.name.title() for day in window.days]
    run = [int(day) for day in window.days] == list(range(window.days[0], window.days[-1] + 1))
    said = f"{days[0]}-{days[-1]}" if run and len(days) > 1 else ",".join(days)
    return f"{said} {window.start:%H:%M}-{window.end:%H:%M}"


def _period(flow: Flow) -> str:
    start = f"from {flow.effective_from}" if flow.effective_from else ""
    end = f"until {flow.effective_until}" if flow.effective_until else ""
    return f"{start} {end}".strip()


def _at(topology: Topology, address: Address) -> End | Address:
    """Return the node or firewall that has an address."""
    for node in topology.nodes.values():
        if address in node.interface.addresses:
            return node
    for firewall in topology.firewalls.values():
        if any(address in interface.addresses for interface in firewall.interfaces):
            return firewall
    return ip_address(address)


def _has(ends: tuple[End, ...] | tuple[Node, ...], end: End | Address) -> bool:
    return isinstance(end, Node | Firewall) and any(each.id == end.id for each in ends)


def _pairs(group: EndGroup, source: End | Address, destination: End | Address) -> bool:
    assert isinstance(source, Node | Firewall) and isinstance(destination, Node | Firewall)  # noqa: S101, PT018 - asked before
    return any(True for _ in group.within({source.id}, {destination.id}).pairs())


def _others(group: EndGroup, source: End | Address) -> list[End]:
    assert isinstance(source, Node | Firewall)  # noqa: S101 - asked before
    return [
        end
        for _, end in EndGroup(
            tuple(n for n in group.sources if n.id == source.id), group.destinations, group.apart
        ).pairs()
    ]


def _site(end: End | Address) -> str | None:
    return end.site if isinstance(end, Node | Firewall) else None


def _cut_off(topology: Topology, end: End | Address) -> str | None:
    site = _site(end)
    return site if site is not None and not topology.sites[site].connected else None


def _name(end: End | Address) -> str:
    return end.id if isinstance(end, Node | Firewall) else str(end)


def _one_of(ends: Sequence[End]) -> str:
    names = list(dict.fromkeys(end.id for end in ends))
    if not names:
        return "nobody"
    if len(names) == 1:
        return names[0]
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return f"one of {', '.join(names[:_FEW])}{more}"


def _ports_away(topology: Topology, flow: Flow, port: int) -> int:
    ports = topology.services[flow.service].ports
    return min(min(abs(port - each.first), abs(port - each.last)) for each in ports)


def _flags(flags: int) -> str:
    names = [name for name, bit in (("fin", FIN), ("syn", SYN), ("rst", RST), ("ack", ACK)) if flags & bit]
    return "+".join(names) or "none"
