"""How an operator reaches a firewall's own endpoint: where it is, and whose TLS is met on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from netpolicy.intent.routing import Routing
from netpolicy.intent.ways import NoWayError, find_way
from netpolicy.topology.ends import End, flow_groups
from netpolicy.topology.identity import identity_uri, server_name
from netpolicy.topology.model import Address, Assurance, Firewall, Flow, Node, Service, Topology


class ReachError(Exception):
    """A firewall cannot be reached so; says why."""


@dataclass(frozen=True, slots=True)
class Reach:
    """A firewall as one operator sees it."""

    firewall: str
    flow: str
    """That permits it."""
    operator: str
    """The node it is reached from."""
    addresses: tuple[Address, ...]
    port: int
    prologue: str | None
    first_name: str
    """The DNS name of whose TLS is met first: the first firewall on the way, or the firewall itself."""
    first_uri: str
    name: str
    """The firewall's own DNS name."""
    uri: str


def reach(topology: Topology, firewall: str, operator: str, alpn: str) -> Reach:
    """Return how an operator reaches a firewall.

    Args:
        topology: Of the network.
        firewall: Its name, or one of its addresses.
        operator: The URI in the operator's certificate.
        alpn: The protocol of the endpoint that is meant.

    Raises:
        ReachError: There is no such firewall or operator, or no flow lets the one manage the other.

    """
    wanted = _firewall(topology, firewall)
    node = next((each for each in topology.nodes.values() if identity_uri(topology, each) == operator), None)
    if node is None:
        raise ReachError(f"the identity is {operator}, which is no node of network {topology.id}")
    for flow, service in _flows(topology, alpn):
        groups = (group.within({node.id}, {wanted.id}) for group in flow_groups(topology, flow))
        if any(True for group in groups for _ in group.pairs()):
            return _reach(topology, wanted, node, flow, service)
    raise ReachError(f"no flow lets '{node.id}' manage '{wanted.id}', whose manager is {wanted.managed_by}")


def _reach(topology: Topology, firewall: Firewall, node: Node, flow: Flow, service: Service) -> Reach:
    try:
        way = find_way(Routing(topology), node, firewall)
    except NoWayError as none:
        raise ReachError(str(none)) from none
    first: End = topology.firewalls[way.path[0].firewall] if way.path else firewall
    return Reach(
        firewall.id,
        flow.id,
        node.id,
        tuple(there for _, there in way.addresses),
        service.ports[0].first,
        service.prologue,
        server_name(topology, first),
        identity_uri(topology, first),
        server_name(topology, firewall),
        identity_uri(topology, firewall),
    )


def _firewall(topology: Topology, wanted: str) -> Firewall:
    found = topology.firewalls.get(wanted)
    if found is not None:
        return found
    for each in topology.firewalls.values():
        if any(str(address) == wanted for interface in each.interfaces for address in interface.addresses):
            return each
    near = get_close_matches(wanted, topology.firewalls, 1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise ReachError(f"network {topology.id} has no firewall '{wanted}'{hint}")


def _flows(topology: Topology, alpn: str) -> Iterator[tuple[Flow, Service]]:
    for flow in topology.effective_flows():
        service = topology.services[flow.service]
        if flow.assurance is Assurance.TERMINATE and service.alpn == alpn and flow.destinations.managed_by is not None:
            yield flow, service
