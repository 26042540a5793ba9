"""Each firewall accepts exactly what its flows say: nothing more, nothing less; and answers to it, exactly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from netpolicy.proof import fields
from netpolicy.proof.case import DELIVERED, FORWARDED, SENT, Case, Finding, found
from netpolicy.proof.expected import Demanded
from netpolicy.proof.fields import REPLY, Family, State
from netpolicy.proof.judged import Judged, unmarked
from netpolicy.proof.model import Hook, Note, Unknown
from netpolicy.proof.packetset import PacketSet, Space
from netpolicy.proof.written import Chance, Listens
from netpolicy.topology.ends import source_limits
from netpolicy.topology.model import Flow

ACCEPTS, ANSWERS, LIMITS = "exact", "answers", "limits"


@dataclass(frozen=True, slots=True)
class _Way:
    """One way for packets to get on, as it is and as it should be."""

    verb: str
    hooks: tuple[Hook, ...]
    is_so: PacketSet
    demanded: Mapping[str, PacketSet]
    possible: PacketSet
    """What can come this way at all."""


def exact(case: Case, firewall: str) -> Iterator[Finding]:
    """Yield where a firewall passes on more or less than it must."""
    judged, demanded, space = case.judged[firewall], case.demanded[firewall], case.space
    answer = space.where(fields.DIRECTION, REPLY) | space.in_state(State.RELATED)
    for way in _ways(judged, demanded):
        wanted = space.union(list(way.demanded.values())) & way.possible
        at_most = space.possibly(way.is_so)
        at_least = space.surely(way.is_so | ~_listening(judged))
        for theorem, part in ((ACCEPTS, ~answer), (ANSWERS, answer)):
            yield from _more(theorem, judged, way, at_most & ~wanted & part, space)
            yield from _less(theorem, judged, way, wanted & ~at_most & part, space)
            refused = wanted & ~at_least & ~demanded.limited & at_most & part
            yield from _less(theorem, judged, way, refused, space)
    yield from _oversized(case, firewall)


def _oversized(case: Case, firewall: str) -> Iterator[Finding]:
    """Yield handshakes that may agree on more than both lines carry: what is too big would be lost, and nobody told."""
    judged, space, topology = case.judged[firewall], case.space, case.topology
    headers = 40 if space.family is Family.IPV4 else 60
    held: dict[int, PacketSet] = {}
    for rule in judged.ruleset.rules():
        for size in (each.segment for each in rule.statements if isinstance(each, Note) and each.segment is not None):
            matched = judged.kernel.record.matched.get((rule.chain, rule.number), space.false)
            held[size] = held.get(size, space.false) | matched
    syn = space.where(fields.PROTOCOL, fields.TCP) & space.having(fields.TCP_FLAGS, fields.SYN, fields.SYN)
    passed = space.union(list(case.demanded[firewall].forwarded.values())) & syn & judged.arriving & space.valid
    interfaces = topology.firewalls[firewall].interfaces
    for one in interfaces:
        for other in interfaces:
            right = min(topology.segments[each.segment].mtu for each in (one, other)) - headers
            lower = space.union([packets for size, packets in held.items() if size < right])
            wrong = lower | ~held.get(right, space.false)
            ways = space.interface(fields.IIF, (one.name,)) & space.interface(fields.OIF, (other.name,))
            picked = space.pick(space.possibly(passed & unmarked(space) & ways & wrong))
            if picked is not None and one is not other:
                what = f"does not hold a handshake to segments of {right} bytes"
                yield found(ANSWERS, judged, FORWARDED, picked, what)


def limits(case: Case, firewall: str) -> Iterator[Finding]:
    """Yield flows whose new connections are not held to exactly the limits that the topology gives.

    Each source is to be held to its own, by a set with room for all of them twice: an element whose connections have
    ended takes its place until the kernel collects it.
    """
    judged, space = case.judged[firewall], case.space
    new = space.in_state(State.NEW)
    taken = judged.forwarded | judged.delivered
    demanded = case.demanded[firewall]
    for flow in {each.flow.id: each.flow for each in case.permitted[firewall]}.values():
        packets = space.union([sets[flow.id] for sets in (demanded.forwarded, demanded.delivered) if flow.id in sets])
        if not (packets & new).satisfiable():
            continue
        wanted = set(_limits(case, firewall, flow))
        chances = [key for key in space.depends_on(taken & packets & new) if isinstance(key, Chance)]
        held = {chance_text(judged, key) for key in chances}
        for what, difference in (("is not held to", wanted - held), ("is held to", held - wanted)):
            for each in sorted(difference):
                yield Finding(LIMITS, firewall, f"flow '{flow.id}' {what} '{each}'", flow=flow.id)
        for key in chances:
            within = space.unknown(key)
            if "inv True" in (text := chance_text(judged, key)):
                within = ~within
            if (taken & packets & new & ~within).satisfiable():
                yield Finding(LIMITS, firewall, f"flow '{flow.id}' passes beyond '{text}'", flow=flow.id)


def _limits(case: Case, firewall: str, flow: Flow) -> Iterator[str]:
    """Yield the statements that hold a flow to its limits, as :func:`chance_text` gives them."""
    rate = flow.limits.rate
    yield f"limit rate {rate} burst {rate} per second inv True"
    yield f"ct count val {flow.limits.connections} inv True"
    version = case.space.family.version
    sources = {
        each.source_address
        for each in case.permitted[firewall]
        if each.flow.id == flow.id and each.source_address.version == version
    }
    each = source_limits(case.topology, flow)
    apart = f"of each {fields.SADDR}, at most {2 * len(sources)}"
    if each.rate is not None:
        yield f"limit rate {each.rate} burst {each.rate} per second {apart}"
    if each.connections is not None:
        yield f"ct count val {each.connections} {apart}"


def chance_text(judged: Judged, chance: Chance) -> str:
    """Return the statement that an unknown stands for."""
    chain, number = chance.unit
    statement = judged.ruleset.chains[chain].rules[number - 1].statements[chance.place]
    return statement.text if isinstance(statement, Unknown) else str(statement)


def _ways(judged: Judged, demanded: Demanded) -> Iterator[_Way]:
    space = judged.space
    leaving = unmarked(space) & space.valid & ~space.interface(fields.OIF, ("",)) & ~space.held()
    arriving = judged.arriving & ~space.held()
    diverted = space.union(list(judged.diverted.values()))
    yield _Way(
        "passes on",
        FORWARDED,
        judged.forwarded,
        demanded.forwarded,
        arriving & leaving,
    )
    yield _Way("hands to its relay", DELIVERED, diverted, demanded.diverted, arriving)
    yield _Way("takes", DELIVERED, judged.delivered, demanded.delivered, arriving)
    own = leaving & space.interface(fields.IIF, ("",))
    yield _Way("says", SENT, judged.sent, demanded.sent, own)


def _listening(judged: Judged) -> PacketSet:
    """Return the packets that come while every relay listens."""
    space = judged.space
    found = space.true
    for port in judged.diverted:
        found &= space.unknown(Listens(judged.host, port))
    return found


def _more(theorem: str, judged: Judged, way: _Way, packets: PacketSet, space: Space) -> Iterator[Finding]:
    picked = space.pick(way.is_so & packets)
    if picked is not None:
        yield found(theorem, judged, way.hooks, picked, f"{way.verb} what no flow permits")


def _less(theorem: str, judged: Judged, way: _Way, packets: PacketSet, space: Space) -> Iterator[Finding]:
    picked = space.pick(packets & ~way.is_so & _listening(judged))
    if picked is not None:
        one = space.of(picked.packet)
        flow = next((flow for flow, wanted in way.demanded.items() if (one & wanted).satisfiable()), None)
        yield found(theorem, judged, way.hooks, picked, f"{way.verb} less than flow '{flow}' permits", flow)
