"""Who listens where, and who may ask whom: the topology's flows as the endpoints see them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from ipaddress import ip_address

from conformance.application.tls import Terms
from netpolicy.intent.routing import Routing
from netpolicy.topology.ends import End, flow_groups
from netpolicy.topology.identity import identity_uri, server_name
from netpolicy.topology.model import Address, Assurance, Firewall, Flow, Node, PortRange, Topology

PEERS = "peers.json"
"""Beside a node's certificate: the servers it may ask."""
SEALING = ".sealing.pub"
"""Beside that, after a server's id: the key that messages for it are sealed with."""
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
    prologue: str | None
    """With what either side begins, as far as the topology says."""
    uri: str
    """Whose TLS the client meets: the destination's, or that of the first firewall where the flow is relayed."""
    name: str
    """The DNS name of the same, which is asked for (SNI)."""
    relays: tuple[str, ...]
    """The firewalls that end the TLS of the flow, on the way from the source; none where it goes through."""
    client_uri: str
    """Whose TLS the server meets: the source's, or that of the last firewall where the flow is relayed."""
    server_uri: str
    """The destination's own."""
    server_address: Address
    """Where the server listens."""
    client_address: Address
    """What the server sees."""


@dataclass(slots=True)
class Listener:
    """One socket of a server."""

    owner: End
    address: Address
    port: int
    allowed: dict[str, list[Terms]]
    """By the URI of whose TLS it meets: the client, for which there is one flow with a port, or the last relay."""
    senders: dict[str, tuple[str, Terms]]
    """Where flows are relayed, by the URI of the client: through which relay it comes, and on which terms."""


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
    server_uri: str
    sealed: bool
    """Whether messages are sealed for the server; its key stands in ``<server>.sealing.pub`` beside this."""


def exchanges(topology: Topology, routing: Routing) -> Iterator[Exchange]:
    """Yield every permitted connection of the effective flows, flow by flow."""
    for flow in topology.effective_flows():
        for group in flow_groups(topology, flow):
            for source, destination in group.pairs():
                yield from _between(topology, routing, flow, source, destination)


def _between(topology: Topology, routing: Routing, flow: Flow, source: Node, destination: End) -> Iterator[Exchange]:
    """Yield the connections of one pair, in each family that both have."""
    service = topology.services[flow.service]
    interface = routing.end_of(source, destination)
    path = routing.path(source.interface.segment, interface.segment) if interface else None
    if interface is None or path is None:
        return
    relays: list[Firewall] = []
    if flow.assurance is Assurance.TERMINATE:
        relays = [topology.firewalls[hop.firewall] for hop in path]
        relays += [destination] if isinstance(destination, Firewall) else []
    speakers: list[End] = [source, *relays, destination]
    own = {address.version: address for address in source.interface.addresses}
    for address in interface.addresses:
        if address.version not in own:
            continue
        # The relay of a firewall asks its endpoint on the loopback device.
        inside = relays and isinstance(destination, Firewall)
        loopback = ip_address("127.0.0.1" if address.version == 4 else "::1")
        for port in _served(service.ports):
            yield Exchange(
                flow=flow,
                source=source,
                destination=destination,
                address=address,
                port=port,
                alpn=service.alpn,
                prologue=service.prologue,
                uri=identity_uri(topology, speakers[1]),
                name=server_name(topology, speakers[1]),
                relays=tuple(relay.id for relay in relays),
                client_uri=identity_uri(topology, speakers[-2]),
                server_uri=identity_uri(topology, destination),
                server_address=loopback if inside else address,
                client_address=loopback if inside else own[address.version],
            )


def listeners(topology: Topology, routing: Routing) -> list[Listener]:
    """Return every socket that servers must have for the effective flows."""
    found: dict[tuple[str, Address, int], Listener] = {}
    for each in exchanges(topology, routing):
        key = (each.destination.id, each.server_address, each.port)
        listener = found.setdefault(key, Listener(each.destination, each.server_address, each.port, {}, {}))
        terms = Terms.of(each.flow, each.alpn)
        of_peer = listener.allowed.setdefault(each.client_uri, [])
        if terms not in of_peer:
            of_peer.append(terms)
        if each.relays:
            listener.senders[identity_uri(topology, each.source)] = (each.client_uri, terms)
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
            server_uri=each.server_uri,
            sealed=bool(each.relays),
        )
        found.setdefault(each.source.id, []).append(asdict(peer))
    return found


def _served(ranges: tuple[PortRange, ...]) -> Iterator[int]:
    for each in ranges:
        if each.last - each.first < MAX_PORTS:
            yield from range(each.first, each.last + 1)
        else:
            yield from (each.first, each.last)
