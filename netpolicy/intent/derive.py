"""From flows to what each firewall must do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from netpolicy.intent.engines import engine_interfaces
from netpolicy.intent.model import (
    FirewallIntent,
    FlowIntent,
    InterfaceIntent,
    Neighbour,
    Peer,
    Permit,
)
from netpolicy.intent.permits import Derived, derive_permits
from netpolicy.intent.routing import Routing, collapse, prefix_order
from netpolicy.intent.verify import verify
from netpolicy.topology.ends import End, source_limits
from netpolicy.topology.identity import identity_uri, server_name
from netpolicy.topology.model import Firewall, Flow, Interface, Prefix, Topology


def derive_intents(topology: Topology) -> dict[str, FirewallIntent]:
    """Return what each firewall must do, by firewall id in the topology's order.

    Raises:
        InputError: See :func:`netpolicy.intent.verify.verify`.

    """
    routing = verify(topology)
    derived = derive_permits(topology, routing)
    disconnected = _disconnected(topology)
    return {
        firewall.id: _firewall(topology, routing, firewall, derived.get(firewall.id, Derived()), disconnected)
        for firewall in topology.firewalls.values()
    }


def _firewall(
    topology: Topology,
    routing: Routing,
    firewall: Firewall,
    derived: Derived,
    disconnected: tuple[tuple[str, tuple[Prefix, ...]], ...],
) -> FirewallIntent:
    behind: dict[str, list[str]] = {interface.name: [] for interface in firewall.interfaces}
    for segment in topology.segments:
        interface = routing.interface_towards(firewall, segment)
        if interface is not None:
            behind[interface.name].append(segment)
    permits = derived.permits
    used = {permit.flow for permit in permits}
    return FirewallIntent(
        network=topology.id,
        id=firewall.id,
        title=firewall.title,
        uri=identity_uri(topology, firewall),
        name=server_name(topology, firewall),
        managed_by=firewall.managed_by,
        timezone=topology.timezone,
        interfaces=tuple(
            _interface(topology, routing, firewall, interface, behind[interface.name])
            for interface in firewall.interfaces
        ),
        crossings=tuple(routing.crossings(firewall)),
        permits=permits,
        flows=tuple(_flow(topology, flow) for flow in topology.flows.values() if flow.id in used),
        forbidden=tuple(topology.forbidden.values()),
        disconnected=disconnected,
        engines=engine_interfaces(topology, firewall, permits),
        relayed=derived.relayed,
        peers=tuple(_peers(topology, permits)),
    )


def _peers(topology: Topology, permits: tuple[Permit, ...]) -> Iterator[Peer]:
    """Yield every end that opens or takes connections across a firewall."""
    met = {address for permit in permits for end in (permit.sources, permit.destinations) for address in end}
    ends: list[End] = [*topology.nodes.values(), *topology.firewalls.values()]
    for end in ends:
        interfaces = end.interfaces if isinstance(end, Firewall) else (end.interface,)
        addresses = tuple(address for interface in interfaces for address in interface.addresses if address in met)
        if addresses:
            uri, name = identity_uri(topology, end), server_name(topology, end)
            yield Peer(end.id, uri, name, addresses, topology.certificates.get(end.id, ()))


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
        mtu=topology.segments[interface.segment].mtu,
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


def _flow(topology: Topology, flow: Flow) -> FlowIntent:
    expires = None
    if flow.effective_until is not None:
        expires = datetime.combine(
            flow.effective_until + timedelta(days=1), time.min, tzinfo=ZoneInfo(topology.timezone)
        )
    service = topology.services[flow.service]
    return FlowIntent(
        id=flow.id,
        title=flow.title,
        basis=str(flow.basis),
        owner=flow.owner,
        assurance=flow.assurance,
        service=service.id,
        transport=service.transport,
        ports=service.ports,
        alpn=service.alpn,
        prologue=service.prologue,
        affair=flow.affair,
        limits=flow.limits,
        per_source=source_limits(topology, flow),
        expires=expires,
    )


def _disconnected(topology: Topology) -> tuple[tuple[str, tuple[Prefix, ...]], ...]:
    sites = [site.id for site in topology.sites.values() if not site.connected]
    prefixes: dict[str, list[Prefix]] = {site: [] for site in sites}
    for segment in topology.segments.values():
        if segment.site in prefixes:
            prefixes[segment.site].extend(segment.prefixes)
    return tuple((site, tuple(sorted(prefixes[site], key=prefix_order))) for site in sites if prefixes[site])
