"""All ordered pairs of segments, on every way: exactly the connections of flows get from one to the other.

The kernels' sets are put one after the other along every way through the graph, not only where routing leads, until
nothing new comes. What may begin at a segment is anything, under any source address: anti-spoofing is part of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from netpolicy.proof import fields
from netpolicy.proof.case import Case, Finding
from netpolicy.proof.fields import STATES, State
from netpolicy.proof.packetset import PacketSet, Space
from netpolicy.proof.readable import described
from netpolicy.topology.ends import select_nodes
from netpolicy.topology.model import Firewall, SegmentKind

REACH, INVARIANT = "pairs", "invariant"

_HEADER = (fields.SADDR, fields.DADDR, fields.PROTOCOL, fields.SPORT, fields.DPORT)


@dataclass(frozen=True, slots=True)
class Step:
    """One firewall from one segment to another, or to itself."""

    firewall: str
    begin: str
    end: str
    opens: PacketSet
    """Headers of what can begin a connection across it."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What gets from where to where: by segment of origin, by segment or firewall of arrival, headers."""

    sets: Mapping[str, Mapping[str, PacketSet]]
    rest: tuple[fields.Field, ...]
    """The fields that headers do not have."""


def reach(case: Case) -> Reach:
    """Follow the sets of all firewalls from every segment."""
    steps: dict[str, list[Step]] = {segment: [] for segment in case.topology.segments}
    rest = tuple(each for each in fields.FIELDS if each not in _HEADER)
    for firewall in case.topology.firewalls.values():
        for step in _steps(case, firewall, rest):
            steps[step.begin].append(step)
    return Reach({segment: _from(case.space, steps, segment) for segment in case.topology.segments}, rest)


def _steps(case: Case, firewall: Firewall, rest: tuple[fields.Field, ...]) -> Iterator[Step]:
    space, judged = case.space, case.judged[firewall.id]
    # What belongs to no connection yet; the rest is answered for by the connection that it belongs to.
    first = space.in_state(State.NEW, State.UNTRACKED, State.INVALID)
    said = space.possibly(judged.sent & first)
    taken = space.possibly(space.union(list(judged.diverted.values())) & first)
    passed = space.possibly(judged.forwarded & first)
    local = space.possibly(judged.delivered & first) & space.where(fields.PROTOCOL, fields.TCP)
    for ingress in firewall.interfaces:
        comes = space.interface(fields.IIF, (ingress.name,))
        relayed = space.without(taken & comes, rest)
        here = space.union([space.where(fields.DADDR, int(each)) for each in _own(firewall, space.family.version)])
        yield Step(firewall.id, ingress.segment, firewall.id, space.without(local & comes, rest) & here)
        for egress in firewall.interfaces:
            if egress is not ingress:
                goes = space.interface(fields.OIF, (egress.name,))
                # A relay goes on from the client's own address and port.
                onward = relayed & space.without(said & goes, rest)
                opens = space.without(passed & comes & goes, rest) | onward
                yield Step(firewall.id, ingress.segment, egress.segment, opens)


def _own(firewall: Firewall, version: int) -> Iterator[int]:
    for interface in firewall.interfaces:
        yield from (int(address) for address in interface.addresses if address.version == version)


def _from(space: Space, steps: Mapping[str, list[Step]], origin: str) -> dict[str, PacketSet]:
    known = {origin: space.true}
    waiting = [origin]
    while waiting:
        here = waiting.pop()
        for step in steps.get(here, ()):
            arrived = known[here] & step.opens
            before = known.get(step.end, space.false)
            after = before | arrived
            if after != before:
                known[step.end] = after
                if step.end in steps:
                    waiting.append(step.end)
    return known


def pairs(case: Case, reached: Reach) -> Iterator[Finding]:
    """Yield pairs between which something else gets than what flows permit."""
    wanted = _wanted(case)
    space = case.space
    for origin, arrivals in reached.sets.items():
        for end in (*case.topology.segments, *case.topology.firewalls):
            if end == origin:
                continue
            is_so = arrivals.get(end, space.false)
            should = wanted.get((origin, end), space.false)
            for what, difference in (
                ("gets, but no flow permits it", is_so & ~should),
                ("does not get", should & ~is_so),
            ):
                picked = space.pick(difference)
                if picked is not None:
                    packet = picked.packet.changed({fields.STATE: STATES.index(State.NEW)})
                    yield Finding(REACH, None, f"from {origin} to {end} {what}", described(packet))


def _wanted(case: Case) -> dict[tuple[str, str], PacketSet]:
    """Return the connections that must get from one segment to another, whichever of the two ends they pass between."""
    space = case.space
    parts: dict[tuple[str, str], list[PacketSet]] = {}
    headers: dict[tuple[int, int, str], PacketSet] = {}
    version = space.family.version
    for firewall, permitted in case.permitted.items():
        for each in permitted:
            if each.source_address.version != version:
                continue
            key = (int(each.source_address), int(each.destination_address), each.flow.id)
            if key not in headers:
                ports = case.topology.services[each.flow.service].ports
                headers[key] = (
                    space.where(fields.PROTOCOL, fields.TCP)
                    & space.where(fields.SADDR, key[0])
                    & space.where(fields.DADDR, key[1])
                    & space.union([space.where(fields.DPORT, port.first, port.last) for port in ports])
                )
            before = _before(case, each.source.interface.segment, firewall, each.ingress)
            end = case.routing.interface(firewall, each.egress).segment if each.egress else firewall
            for segment in before:
                parts.setdefault((segment, end), []).append(headers[key])
    return {pair: space.union(sets) for pair, sets in parts.items()}


def _before(case: Case, source: str, firewall: str, ingress: str) -> list[str]:
    """Return the segments of the way up to a firewall."""
    last = case.routing.interface(firewall, ingress).segment
    path = case.routing.path(source, last) or ()
    return [source, *(case.routing.interface(hop.firewall, hop.out_interface).segment for hop in path)]


def invariants(case: Case, reached: Reach) -> Iterator[Finding]:
    """Yield what gets through although an invariant of the topology says that it never must."""
    space, version = case.space, case.space.family.version
    for invariant in case.topology.invariants.values():
        destinations = select_nodes(case.topology, invariant.destinations)
        for source in select_nodes(case.topology, invariant.sources):
            origin = source.interface.segment
            own = [int(address) for address in source.interface.addresses if address.version == version]
            outside = case.topology.segments[origin].kind is SegmentKind.EXTERNAL
            # Nobody answers for addresses outside: whatever says it comes from there is meant.
            claimed = space.true if outside else space.union([space.where(fields.SADDR, each) for each in own])
            for destination in destinations:
                there = space.union(
                    [
                        space.where(fields.DADDR, int(address))
                        for address in destination.interface.addresses
                        if address.version == version
                    ]
                )
                arrived = reached.sets[origin].get(destination.interface.segment, space.false)
                if origin == destination.interface.segment:
                    continue
                picked = space.pick(arrived & claimed & there)
                if picked is not None:
                    what = f"invariant '{invariant.id}': {source.id} gets to {destination.id}"
                    yield Finding(INVARIANT, None, what, described(picked.packet))
