"""Who listens where, and who may ask whom: the topology's flows as the endpoints see them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from conformance.application.tls import Terms
from netpolicy.intent.routing import Routing
from netpolicy.topology.ends import End, flow_groups
from netpolicy.topology.identity import identity_uri, server_name
from netpolicy.topology.model import Address, Flow, Node, PortRange, Topology

MAX_PORTS = 16
"""Of a service with more, the lab serves the first and the last."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One permitted connection: a pair of ends, a family and a port."""

    flow: Flow
    source: Node
    destination: End
    address: Address
    """Of the destination."""
    port: int
    alpn: str
    uri: str
    """The destination's."""
    name: str
    """The DNS name that is asked for (SNI)."""


@dataclass(slots=True)
class Listener:
    """One socket of a server."""

    owner: End
    address: Address
    port: int
    allowed: dict[str, Terms]
    """By the URI of the client: no two flows permit it the same port."""


@dataclass(frozen=True, slots=True)
class Peer:
    """What a client must know to ask a server; plain values, for a file."""

    destination: str
    address: str
    port: int
    service: str
    alpn: str
    assurance: str
    uri: str
    name: str
    flow: str
    affair: str


def exchanges(topology: Topology, routing: Routing) -> Iterator[Exchange]:
    """Yield every permitted connection of the effective flows, flow by flow."""
    for flow in topology.effective_flows():
        service = topology.services[flow.service]
        for group in flow_groups(topology, flow):
            for source, destination in group.pairs():
                interface = routing.end_of(source, destination)
                families = {address.version for address in source.interface.addresses}
                for address in interface.addresses if interface else ():
                    if address.version in families:
                        uri, name = identity_uri(topology, destination), server_name(topology, destination)
                        for port in _served(service.ports):
                            yield Exchange(flow, source, destination, address, port, service.alpn, uri, name)


def listeners(topology: Topology, routing: Routing) -> list[Listener]:
    """Return every socket that servers must have for the effective flows."""
    found: dict[tuple[Address, int], Listener] = {}
    for each in exchanges(topology, routing):
        key = (each.address, each.port)
        listener = found.setdefault(key, Listener(each.destination, each.address, each.port, {}))
        listener.allowed[identity_uri(topology, each.source)] = Terms.of(each.flow, each.alpn)
    return list(found.values())


def peers(topology: Topology, routing: Routing) -> dict[str, list[dict[str, object]]]:
    """Return, by node, the servers that it may ask."""
    found: dict[str, list[dict[str, object]]] = {}
    for each in exchanges(topology, routing):
        peer = Peer(
            destination=each.destination.id,
            address=str(each.address),
            port=each.port,
            service=each.flow.service,
            alpn=each.alpn,
            assurance=each.flow.assurance.value,
            uri=each.uri,
            name=each.name,
            flow=each.flow.id,
            affair=each.flow.affair,
        )
        found.setdefault(each.source.id, []).append(asdict(peer))
    return found


def _served(ranges: tuple[PortRange, ...]) -> Iterator[int]:
    for each in ranges:
        if each.last - each.first < MAX_PORTS:
            yield from range(each.first, each.last + 1)
        else:
            yield from (each.first, each.last)
