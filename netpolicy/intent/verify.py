"""Whether flows fit the network they are to cross, told without working out what each firewall must do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations, islice

from netpolicy.diagnostics import Diagnostic, InputError, Severity
from netpolicy.intent.listeners import listener_ports
from netpolicy.intent.routing import Routing
from netpolicy.intent.ways import NoWayError, find_way
from netpolicy.topology.ends import End, EndGroup, flow_groups
from netpolicy.topology.model import Assurance, Firewall, Flow, Interface, Node, Topology

Groups = Mapping[str, tuple[EndGroup, ...]]
"""By flow."""


def verify(topology: Topology) -> Routing:
    """Return the routing of a topology whose effective flows can be compiled.

    Raises:
        InputError: A flow has ends that no path joins, two flows permit the same packets, a relay has no port left to
            listen on, or several cheapest paths join two segments.

    """
    routing = Routing(topology)
    flows = {flow.id: flow for flow in topology.effective_flows()}
    groups = {flow.id: tuple(flow_groups(topology, flow)) for flow in flows.values()}
    findings = [
        *_overlaps(topology, flows, groups),
        *_without_listener(topology, flows),
        *_unjoined(topology, routing, flows, groups),
    ]
    if findings:
        raise InputError(findings)
    return routing


def _unjoined(topology: Topology, routing: Routing, flows: Mapping[str, Flow], groups: Groups) -> Iterator[Diagnostic]:
    """Yield one finding for each flow some of whose ends no path joins."""
    everywhere = _families_everywhere(topology)
    for flow in flows.values():
        problems = [
            problem
            for group in groups[flow.id]
            if not _surely_joined(routing, group, everywhere)
            for source, destination in group.pairs()
            if (problem := _problem(routing, source, destination)) is not None
        ]
        if problems:
            more = f" (and {len(problems) - 1} more pairs of its ends)" if len(problems) > 1 else ""
            yield Diagnostic(
                place=flow.place,
                severity=Severity.ERROR,
                message=f"flow '{flow.id}' cannot pass: {problems[0]}{more}",
                expected="ends that firewalls join, in an address family that every firewall between them has",
            )


def _problem(routing: Routing, source: Node, destination: End) -> str | None:
    """Return why one end cannot reach another, None if it can."""
    try:
        find_way(routing, source, destination)
    except NoWayError as none:
        return str(none)
    return None


def _families_everywhere(topology: Topology) -> set[int]:
    """Return the address families that every interface of every firewall has."""
    interfaces = [interface for firewall in topology.firewalls.values() for interface in firewall.interfaces]
    return {
        version
        for version in (4, 6)
        if all(any(address.version == version for address in each.addresses) for each in interfaces)
    }


def _surely_joined(routing: Routing, group: EndGroup, everywhere: set[int]) -> bool:
    """Tell whether every pair of a group has a way, without trying each: three million pairs take minutes."""
    attached = [interface for end in (*group.sources, *group.destinations) for interface in _interfaces(end)]
    families = [{address.version for address in interface.addresses} for interface in attached]
    first = attached[0].segment
    return (
        set.union(*families) <= everywhere
        and bool(set.intersection(*families))
        and all(routing.joined(first, interface.segment) for interface in attached)
    )


def _interfaces(end: End) -> tuple[Interface, ...]:
    return end.interfaces if isinstance(end, Firewall) else (end.interface,)


def _overlaps(topology: Topology, flows: Mapping[str, Flow], groups: Groups) -> Iterator[Diagnostic]:
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
            for source, destination in b.within(sources, destinations).pairs():
                if not (a.apart and source.site == destination.site):
                    return source.id, destination.id
    return None


def _without_listener(topology: Topology, flows: Mapping[str, Flow]) -> Iterator[Diagnostic]:
    """Yield a finding for each flow for which a relay on its way may have no port."""
    terminated = [flow for flow in flows.values() if flow.assurance is Assurance.TERMINATE]
    free = list(islice(listener_ports(topology), len(terminated)))
    for flow in terminated[len(free) :]:
        yield Diagnostic(
            place=flow.place,
            severity=Severity.ERROR,
            message=f"a relay that ends the TLS of flow '{flow.id}' has no port to listen on: services have them all",
            expected="services with fewer ports (a relay takes one from 61001 to 65535, or from 1024 to 32767)",
        )
