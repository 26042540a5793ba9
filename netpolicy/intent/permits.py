"""From the ends of flows to permits on every firewall in between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from netpolicy.intent.listeners import listener_ports
from netpolicy.intent.model import Direction, Permit, RelayedFlow, TlsPeer
from netpolicy.intent.routing import Routing
from netpolicy.intent.ways import find_way
from netpolicy.topology.ends import End, flow_groups
from netpolicy.topology.identity import identity_uri, server_name
from netpolicy.topology.model import Address, Assurance, Flow, Node, Topology

_Crossing = tuple[str, Direction, str, str | None]
"""Flow, direction, interface in, interface out."""


@dataclass(slots=True)
class _Collected:
    """What one firewall must permit, before it is gathered into rectangles."""

    sources: dict[_Crossing, dict[Address, dict[Address, None]]] = field(default_factory=dict)
    """For each crossing and destination, the sources as an ordered set."""

    before: dict[str, dict[Address, End]] = field(default_factory=dict)
    """By flow and source, who speaks TLS from there: the source itself, or the last firewall before this one."""
    after: dict[str, dict[Address, End]] = field(default_factory=dict)
    """By flow and destination, who is asked for TLS: it, or the next firewall."""
    local: dict[str, dict[Address, None]] = field(default_factory=dict)
    """By flow, the destinations that are this firewall itself, as an ordered set."""
    senders: dict[str, set[str]] = field(default_factory=dict)
    """By flow, the URIs of the sources that end at this firewall itself."""

    def add(self, crossing: _Crossing, source: Address, destination: Address) -> None:
        self.sources.setdefault(crossing, {}).setdefault(destination, {})[source] = None

    def join(self, flow: str, before: tuple[Address, End], after: tuple[Address, End]) -> None:
        """Note who is on either side of a relay; the way from an address to here does not depend on where it goes."""
        self.before.setdefault(flow, {})[before[0]] = before[1]
        self.after.setdefault(flow, {})[after[0]] = after[1]

    def relayed(self, topology: Topology) -> Iterator[RelayedFlow]:
        """Yield what the relay must know of each flow whose TLS it ends."""
        free = listener_ports(topology)
        for flow, before in self.before.items():
            yield RelayedFlow(
                flow=flow,
                port=next(free),
                clients=_tls_peers(topology, before),
                servers=_tls_peers(topology, self.after[flow]),
                local=tuple(sorted(self.local.get(flow, ()), key=_address_order)),
                senders=tuple(sorted(self.senders.get(flow, ()))),
            )

    def permits(self, topology: Topology) -> Iterator[Permit]:
        """Yield rectangles: the destinations of a crossing that share their sources stand together."""
        for (flow, direction, in_interface, out_interface), by_destination in self.sources.items():
            rectangles: dict[tuple[Address, ...], list[Address]] = {}
            for destination, sources in by_destination.items():
                key = tuple(sorted(sources, key=_address_order))
                rectangles.setdefault(key, []).append(destination)
            service = topology.services[topology.flows[flow].service]
            for sources_, destinations in rectangles.items():
                yield Permit(
                    flow=flow,
                    direction=direction,
                    in_interface=in_interface,
                    out_interface=out_interface,
                    sources=sources_,
                    destinations=tuple(sorted(destinations, key=int)),
                    transport=service.transport,
                    ports=service.ports,
                )


@dataclass(frozen=True, slots=True)
class Derived:
    """What one firewall must permit and relay."""

    permits: tuple[Permit, ...] = ()
    relayed: tuple[RelayedFlow, ...] = ()


def derive_permits(topology: Topology, routing: Routing) -> dict[str, Derived]:
    """Return what each firewall must permit, by id; :func:`netpolicy.intent.verify.verify` must have found nothing."""
    collected: dict[str, _Collected] = {}
    for flow in topology.effective_flows():
        for group in flow_groups(topology, flow):
            for source, destination in group.pairs():
                _permit(topology, routing, collected, flow, (source, destination))
    return {
        firewall: Derived(tuple(found.permits(topology)), tuple(found.relayed(topology)))
        for firewall, found in collected.items()
    }


def _permit(
    topology: Topology,
    routing: Routing,
    collected: dict[str, _Collected],
    flow: Flow,
    ends: tuple[Node, End],
) -> None:
    """Add what one pair of ends needs on every firewall of its way."""
    source, destination = ends
    way = find_way(routing, source, destination)
    firewalls = [topology.firewalls[hop.firewall] for hop in way.path]
    speakers: list[End] = [source, *firewalls, destination]
    for a, b in way.addresses:
        for number, hop in enumerate(way.path):
            crossing: _Crossing = (flow.id, Direction.FORWARD, hop.in_interface, hop.out_interface)
            found = collected.setdefault(hop.firewall, _Collected())
            found.add(crossing, a, b)
            if flow.assurance is Assurance.TERMINATE:
                found.join(flow.id, (a, speakers[number]), (b, speakers[number + 2]))
        if way.local is not None:
            crossing = (flow.id, Direction.INPUT, way.local.name, None)
            found = collected.setdefault(destination.id, _Collected())
            found.add(crossing, a, b)
            if flow.assurance is Assurance.TERMINATE:
                found.join(flow.id, (a, speakers[-2]), (b, destination))
                found.local.setdefault(flow.id, {})[b] = None
                found.senders.setdefault(flow.id, set()).add(identity_uri(topology, source))


def _tls_peers(topology: Topology, ends: Mapping[Address, End]) -> tuple[TlsPeer, ...]:
    return tuple(
        TlsPeer(address, identity_uri(topology, ends[address]), server_name(topology, ends[address]))
        for address in sorted(ends, key=_address_order)
    )


def _address_order(address: Address) -> tuple[int, int]:
    return address.version, int(address)
