"""What a firewall must do with a packet, by the topology alone: never by a permit, an emitter or a compiled file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from ipaddress import IPv4Network
from time import sleep
from zoneinfo import ZoneInfo

from conformance.hours import open_at, seconds_to_edge
from conformance.outcome import Expected, Verdict
from netpolicy.intent.routing import Routing
from netpolicy.reasons import DenyReason
from netpolicy.topology.ends import End, flow_groups
from netpolicy.topology.model import Address, Assurance, Firewall, Flow, Node, PortRange, Segment, Topology

Ends = tuple[str, str | None, Address, Address]
"""Interface in, interface out (None: the firewall itself), source, destination."""


@dataclass(frozen=True, slots=True)
class Packet:
    """What a firewall is given to judge."""

    ingress: str
    source: Address
    destination: Address
    transport: str
    """``tcp``, ``udp`` or ``icmp``."""
    port: int
    """Destination port; 0 for ICMP."""
    oddity: DenyReason | None = None
    """Why its shape alone is refused (those of _SHAPES, INVALID), or SPOOFED_DESTINATION if it was made to go
    astray."""


@dataclass(frozen=True, slots=True)
class Permitted:
    """Where a flow crosses a firewall: one pair of ends in one family."""

    firewall: str
    ends: Ends
    flow: Flow
    ports: tuple[PortRange, ...]
    source: Node
    destination: End

    @property
    def relayed(self) -> bool:
        """Whether the firewall's own relay takes the connection."""
        return self.flow.assurance is Assurance.TERMINATE

    @property
    def egress(self) -> str | None:
        """By which interface a packet leaves; None if it ends on the firewall."""
        return None if self.relayed else self.ends[1]


_SHAPES = (
    *(DenyReason.FRAGMENT, DenyReason.IP_OPTION, DenyReason.EXTENSION_HEADER, DenyReason.TTL),
    *(DenyReason.ICMP_ERROR, DenyReason.SYN_DATA),
)


class Expectation:
    """The verdicts that a topology demands of all its firewalls."""

    def __init__(self, topology: Topology, routing: Routing, when: datetime) -> None:
        """Judge as at the instant `when`, which decides service hours and last days; it may be set anew."""
        self.topology = topology
        self.routing = routing
        self.when = when
        self.permits: dict[str, list[Permitted]] = {firewall: [] for firewall in topology.firewalls}
        for flow in topology.effective_flows():
            for permitted in self._permitted(flow):
                self.permits[permitted.firewall].append(permitted)

    def judge(self, firewall: str) -> Judge:
        """Return the judge of one firewall."""
        return Judge(self, self.topology.firewalls[firewall])

    def closed(self, flow: Flow) -> DenyReason | None:
        """Return why nothing new of a flow passes at this instant, None if it does."""
        zone = ZoneInfo(self.topology.timezone)
        if flow.effective_until is not None and self.when.astimezone(zone).date() > flow.effective_until:
            return DenyReason.EXPIRED
        if not open_at(flow.limits, self.topology.timezone, self.when):
            return DenyReason.OUTSIDE_HOURS
        return None

    def seconds_to_change(self) -> float:
        """Return the seconds until some flow opens or closes, infinity if none ever does."""
        zone = ZoneInfo(self.topology.timezone)
        found = [math.inf]
        for flow in self.topology.effective_flows():
            found.append(seconds_to_edge(flow.limits, self.topology.timezone, self.when))
            if flow.effective_until is not None:
                end = datetime.combine(flow.effective_until + timedelta(days=1), time.min, tzinfo=zone)
                if end > self.when:
                    found.append((end - self.when).total_seconds())
        return min(found)

    def advance(self, ahead: float, progress: Callable[[str], None] = lambda _line: None) -> None:
        """Judge as at this instant, after waiting out a change that would come within `ahead` seconds.

        Args:
            ahead: As long as what is judged takes.
            progress: Told why nothing happens.

        """
        while True:
            self.when = datetime.now(UTC)
            nearest = self.seconds_to_change()
            if nearest >= ahead:
                return
            progress(f"a flow opens or closes in {nearest:.0f} s: waiting until then")
            sleep(nearest + 1.0)

    def _permitted(self, flow: Flow) -> Iterator[Permitted]:
        ports = self.topology.services[flow.service].ports
        for group in flow_groups(self.topology, flow):
            for source, destination in group.pairs():
                for firewall, ends in self._crossed(source, destination):
                    yield Permitted(firewall, ends, flow, ports, source, destination)

    def _crossed(self, source: Node, destination: End) -> Iterator[tuple[str, Ends]]:
        """Yield each firewall on the way, with how the way goes through it, in each family both ends speak."""
        interface = self.routing.end_of(source, destination)
        if interface is None:
            return
        path = self.routing.path(source.interface.segment, interface.segment)
        for a in source.interface.addresses:
            for b in interface.addresses:
                if a.version == b.version and path is not None:
                    for hop in path:
                        yield hop.firewall, (hop.in_interface, hop.out_interface, a, b)
                    if isinstance(destination, Firewall):
                        yield destination.id, (interface.name, None, a, b)


def nobody(segment: Segment) -> Iterator[Address]:
    """Yield the addresses of a segment that are nobody's: directed broadcast, subnet-router anycast (RFC 4291)."""
    for prefix in segment.prefixes:
        if prefix.num_addresses > 2:
            yield prefix.broadcast_address if isinstance(prefix, IPv4Network) else prefix.network_address


@dataclass(slots=True)
class Judge:
    """The verdicts that one firewall must come to; reasons are tried in the order of :class:`DenyReason`."""

    expectation: Expectation
    firewall: Firewall
    _towards: dict[str, str] = field(default_factory=dict)
    """Segment to the interface it is reached by."""
    _own: set[Address] = field(default_factory=set)
    _reserved: set[Address] = field(default_factory=set)
    _crossings: set[tuple[str, str]] = field(default_factory=set)
    _permits: dict[Ends, list[Permitted]] = field(default_factory=dict)
    _by_pair: dict[tuple[Address, Address], list[Permitted]] = field(default_factory=dict)
    _segments: dict[Address, str | None] = field(default_factory=dict)
    _forbidden: dict[tuple[str, int], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._locate()
        for permitted in self.expectation.permits[self.firewall.id]:
            self._permits.setdefault(permitted.ends, []).append(permitted)
            self._by_pair.setdefault(permitted.ends[2:], []).append(permitted)
        for protocol in self.expectation.topology.forbidden.values():
            for transport, ranges in (("tcp", protocol.tcp), ("udp", protocol.udp)):
                for each in ranges:
                    ports = range(each.first, each.last + 1)
                    self._forbidden.update(dict.fromkeys(((transport, port) for port in ports), protocol.id))

    def _locate(self) -> None:
        """Find out what lies where, seen from the firewall."""
        topology, routing = self.expectation.topology, self.expectation.routing
        for segment in topology.segments:
            interface = routing.interface_towards(self.firewall, segment)
            if interface is not None:
                self._towards[segment] = interface.name
        for interface in self.firewall.interfaces:
            self._own.update(interface.addresses)
            self._reserved.update(nobody(topology.segments[interface.segment]))
            for other in self.firewall.interfaces:
                path = routing.path(interface.segment, other.segment)
                if path is not None and [hop.firewall for hop in path] == [self.firewall.id]:
                    self._crossings.add((interface.name, other.name))

    def judge(self, packet: Packet, about: str | None = None) -> tuple[Expected, str | None]:
        """Return the verdict on `packet`, and the interface it must leave by (None: it must not, or ends here).

        Args:
            packet: As it arrives.
            about: The flow that the packet is meant to test, for a denial to name; by default the closest one.

        """
        reason, egress, permitted = self._judge(packet)
        if reason is None and permitted is not None:
            return Expected(Verdict.PERMIT, permitted.flow.id), egress
        flow = about or (permitted.flow.id if permitted else self._closest(packet))
        protocol = None
        if reason is None:
            protocol = self._forbidden.get((packet.transport, packet.port))
            reason = DenyReason.FORBIDDEN if protocol else DenyReason.NO_FLOW
        return Expected(Verdict.DENY, flow, reason, protocol), None

    def _judge(self, packet: Packet) -> tuple[DenyReason | None, str | None, Permitted | None]:
        """Return the reason (None: the permit decides), the egress, and the permit that fits."""
        egress = None if packet.destination in self._own else self._towards.get(self._segment(packet.destination) or "")
        reason = self._before_routing(packet, egress)
        if reason is None and egress is not None:
            reason = self._between(packet, egress)
        if reason is not None:
            return reason, None, None
        permitted = self._permit(packet, egress)
        if permitted is not None:
            return self.expectation.closed(permitted.flow), permitted.egress, permitted
        return (DenyReason.INPUT if egress is None else None), egress, None

    def _before_routing(self, packet: Packet, egress: str | None) -> DenyReason | None:
        """Return the reason that shape and addresses alone give."""
        if packet.oddity in _SHAPES:
            return packet.oddity
        source = self._segment(packet.source)
        if self._towards.get(source or "") != packet.ingress or packet.source in self._own | self._reserved:
            return DenyReason.SPOOFED_SOURCE
        if packet.destination not in self._own and (egress is None or packet.destination in self._reserved):
            return DenyReason.NO_ROUTE
        return packet.oddity

    def _between(self, packet: Packet, egress: str) -> DenyReason | None:
        """Return the reason that sites and interfaces give."""
        if self._cut_off(packet):
            return DenyReason.NOT_CONNECTED
        return None if (packet.ingress, egress) in self._crossings else DenyReason.NO_PATH

    def _permit(self, packet: Packet, egress: str | None) -> Permitted | None:
        if packet.transport != "tcp" or packet.oddity is not None:
            return None
        ends = (packet.ingress, egress, packet.source, packet.destination)
        for permitted in self._permits.get(ends, ()):
            if any(packet.port in ports for ports in permitted.ports):
                return permitted
        return None

    def _closest(self, packet: Packet) -> str | None:
        """Return the flow between the same ends, or back, whose port is nearest."""
        for pair in ((packet.source, packet.destination), (packet.destination, packet.source)):
            found = self._by_pair.get(pair)
            if found:
                return min(found, key=lambda each: abs(each.ports[0].first - packet.port)).flow.id
        return None

    def _segment(self, address: Address) -> str | None:
        if address not in self._segments:
            self._segments[address] = next(
                (
                    segment.id
                    for segment in self.expectation.topology.segments.values()
                    for prefix in segment.prefixes
                    if address.version == prefix.version and address in prefix
                ),
                None,
            )
        return self._segments[address]

    def _cut_off(self, packet: Packet) -> bool:
        """Tell whether one end is at a site that is not connected, and the other is not at the same one."""
        ends = [self._site(packet.source), self._site(packet.destination)]
        sites = self.expectation.topology.sites
        return ends[0] != ends[1] and any(site is not None and not sites[site].connected for site in ends)

    def _site(self, address: Address) -> str | None:
        segment = self._segment(address)
        return self.expectation.topology.segments[segment].site if segment else None
