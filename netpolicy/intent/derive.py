"""From flows to what each firewall must do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, time, timedelta
from itertools import combinations
from zoneinfo import ZoneInfo

from netpolicy.diagnostics import Diagnostic, InputError, Severity
from netpolicy.intent.model import (
    FirewallIntent,
    FlowIntent,
    InterfaceIntent,
    Neighbour,
    Permit,
)
from netpolicy.intent.permits import derive_permits
from netpolicy.intent.routing import Routing, collapse, prefix_order
from netpolicy.topology.ends import EndGroup, flow_groups
from netpolicy.topology.model import Firewall, Flow, Interface, Prefix, Topology


def derive_intents(topology: Topology) -> dict[str, FirewallIntent]:
    """Return what each firewall must do, by firewall id in the topology's order.

    Raises:
        InputError: A flow has ends that no path joins, two flows permit the same packets, service hours are in a time
            zone with daylight saving time, or several cheapest paths join two segments.

    """
    routing = Routing(topology)
    flows = {flow.id: flow for flow in topology.effective_flows()}
    groups = {flow.id: tuple(flow_groups(topology, flow)) for flow in flows.values()}
    findings = [*_overlaps(topology, flows, groups), *_unsteady_hours(topology, flows)]
    permits, unjoined = derive_permits(topology, routing, flows, groups)
    findings.extend(unjoined)
    if findings:
        raise InputError(findings)
    disconnected = _disconnected(topology)
    return {
        firewall.id: _firewall(topology, routing, firewall, permits.get(firewall.id, ()), disconnected)
        for firewall in topology.firewalls.values()
    }


def _firewall(
    topology: Topology,
    routing: Routing,
    firewall: Firewall,
    permits: tuple[Permit, ...],
    disconnected: tuple[tuple[str, tuple[Prefix, ...]], ...],
) -> FirewallIntent:
    behind: dict[str, list[str]] = {interface.name: [] for interface in firewall.interfaces}
    for segment in topology.segments:
        interface = routing.interface_towards(firewall, segment)
        if interface is not None:
            behind[interface.name].append(segment)
    used = {permit.flow for permit in permits}
    return FirewallIntent(
        network=topology.id,
        id=firewall.id,
        title=firewall.title,
        managed_by=firewall.managed_by,
        timezone=topology.timezone,
        interfaces=tuple(
            _interface(topology, routing, firewall, interface, behind[interface.name])
            for interface in firewall.interfaces
        ),
        crossings=tuple(_crossings(routing, firewall)),
        permits=permits,
        flows=tuple(_flow(topology, flow) for flow in topology.flows.values() if flow.id in used),
        forbidden=tuple(topology.forbidden.values()),
        disconnected=disconnected,
    )


def _interface(
    topology: Topology, routing: Routing, firewall: Firewall, interface: Interface, behind: list[str]
) -> InterfaceIntent:
    beyond = [segment for segment in behind if segment != interface.segment]
    prefixes = [prefix for segment in behind for prefix in topology.segments[segment].prefixes]
    return InterfaceIntent(
        name=interface.name,
        segment=interface.segment,
        mac=interface.mac,
        addresses=interface.addresses,
        prefixes=topology.segments[interface.segment].prefixes,
        behind=collapse(prefixes),
        neighbours=tuple(_neighbours(topology, firewall, interface.segment)),
        routes=routing.routes(interface.segment, tuple(beyond)),
    )


def _neighbours(topology: Topology, firewall: Firewall, segment: str) -> Iterator[Neighbour]:
    """Yield everyone else on a segment, firewalls first, in file order."""
    for other in topology.firewalls.values():
        if other.id == firewall.id:
            continue
        for interface in other.interfaces:
            if interface.segment == segment:
                for address in interface.addresses:
                    yield Neighbour(other.id, address, interface.mac)
    for node in topology.nodes.values():
        if node.interface.segment == segment:
            for address in node.interface.addresses:
                yield Neighbour(node.id, address, node.interface.mac)


def _crossings(routing: Routing, firewall: Firewall) -> Iterator[tuple[str, str]]:
    """Yield the pairs of interfaces that a path goes through.

    Any such path holds the cheapest path between the two segments beside the firewall, which is the firewall alone.
    """
    for source in firewall.interfaces:
        for destination in firewall.interfaces:
            if source is destination:
                continue
            path = routing.path(source.segment, destination.segment)
            if path is not None and len(path) == 1 and path[0].firewall == firewall.id:
                yield source.name, destination.name


def _flow(topology: Topology, flow: Flow) -> FlowIntent:
    expires = None
    if flow.effective_until is not None:
        expires = datetime.combine(
            flow.effective_until + timedelta(days=1), time.min, tzinfo=ZoneInfo(topology.timezone)
        )
    return FlowIntent(flow.id, flow.title, str(flow.basis), flow.owner, flow.assurance, flow.limits, expires)


def _disconnected(topology: Topology) -> tuple[tuple[str, tuple[Prefix, ...]], ...]:
    sites = [site.id for site in topology.sites.values() if not site.connected]
    prefixes: dict[str, list[Prefix]] = {site: [] for site in sites}
    for segment in topology.segments.values():
        if segment.site in prefixes:
            prefixes[segment.site].extend(segment.prefixes)
    return tuple((site, tuple(sorted(prefixes[site], key=prefix_order))) for site in sites if prefixes[site])


def _overlaps(
    topology: Topology, flows: Mapping[str, Flow], groups: Mapping[str, tuple[EndGroup, ...]]
) -> Iterator[Diagnostic]:
    """Yield one finding for each two flows that permit the same packets: no packet may have two legal bases."""
    for first, second in combinations(flows.values(), 2):
        ports = topology.services[first.service].ports
        others = topology.services[second.service].ports
        if not any(a.first <= b.last and b.first <= a.last for a in ports for b in others):
            continue
        pair = _common_pair(groups[first.id], groups[second.id])
        if pair is not None:
            yield Diagnostic(
                place=second.place,
                severity=Severity.ERROR,
                message=(
                    f"flows '{first.id}' and '{second.id}' both permit '{second.service}' from '{pair[0]}' to "
                    f"'{pair[1]}', so a packet would have two legal bases"
                ),
                expected="disjoint ends, or a service with ports of its own for one of them",
            )


def _common_pair(first: tuple[EndGroup, ...], second: tuple[EndGroup, ...]) -> tuple[str, str] | None:
    for a in first:
        sources = {end.id for end in a.sources}
        destinations = {end.id for end in a.destinations}
        for b in second:
            for source in b.sources:
                if source.id not in sources:
                    continue
                for destination in b.destinations:
                    if destination.id in destinations and destination.id != source.id:
                        return source.id, destination.id
    return None


def _unsteady_hours(topology: Topology, flows: Mapping[str, Flow]) -> Iterator[Diagnostic]:
    """Yield a finding for each flow with service hours if the zone's offset changes: the kernel's clock is UTC."""
    zone = ZoneInfo(topology.timezone)
    noon = datetime.combine(topology.as_of, time(12), tzinfo=zone)
    offsets = {(noon + timedelta(days=day)).utcoffset() for day in range(0, 732, 7)}
    if len(offsets) == 1:
        return
    for flow in flows.values():
        if flow.limits.windows:
            yield Diagnostic(
                place=flow.place,
                severity=Severity.ERROR,
                message=(
                    f"flow '{flow.id}' has service hours in time zone '{topology.timezone}', whose offset from UTC "
                    "changes during the next two years; the kernel compares hours in UTC"
                ),
                expected="a time zone without daylight saving time, such as 'Asia/Tokyo' or 'Etc/UTC'",
            )
