"""What one side of a comparison lets through: a topology's demands, or what rulesets do."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from netpolicy.intent.routing import Routing
from netpolicy.proof import fields
from netpolicy.proof.expected import Demanded, Demands, Permitted, crossings
from netpolicy.proof.fields import REPLY, Family, State
from netpolicy.proof.judged import LOOPBACK, Judged, judge
from netpolicy.proof.model import Divert, Ruleset, Unknown, Verdict, VerdictKind
from netpolicy.proof.packetset import PacketSet, Space
from netpolicy.topology.ends import source_limits
from netpolicy.topology.model import Flow, Topology

_FLOW_CHAINS = ("flow_", "onward_", "open_", "hours_onward_", "rated_", "counted_")
"""What chains of compiled rulesets that judge a flow begin with."""
_FRAGMENTATION_NEEDED, _PACKET_TOO_BIG = 3 << 8 | 4, 2 << 8
_DISCOVERY = (135 << 8, 136 << 8)
"""ICMP types and codes, as :data:`netpolicy.proof.fields.SPORT` has them."""
_LIMIT = re.compile(r"(ip6? saddr )?(limit rate|ct count|quota)( over)? \S+( burst \d+ \S+)?")
"""As nft prints them."""
UNLIMITED = "no limit"


class Way(enum.StrEnum):
    """What becomes of a packet that is not stopped."""

    FORWARDED = "forwarded"
    DIVERTED = "diverted"
    """To the firewall's relay."""
    DELIVERED = "delivered"
    """To the firewall itself, not through a relay's listener."""
    SENT = "sent"
    """By the firewall or its relay."""


@dataclass(frozen=True, slots=True)
class Passed:
    """What one firewall passes of a family: for each way all of it, and parts of it by flow."""

    ways: Mapping[Way, PacketSet]
    by_flow: Mapping[str, Mapping[Way, PacketSet]]
    """By a flow's id or what the network itself needs (:class:`netpolicy.proof.expected.Demanded`), in order."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What a flow is held to, in one form for both kinds of sides."""

    flow: str
    """Or a chain."""
    text: str
    firewall: str


class Side(Protocol):
    """One side."""

    @property
    def firewalls(self) -> tuple[str, ...]:
        """Return its firewalls."""

    def names(self, firewall: str) -> frozenset[str]:
        """Return the names of interfaces that matter to a firewall, which it need not have."""

    def passed(self, firewall: str, space: Space) -> Passed:
        """Return what a firewall passes; one that is not there passes nothing."""

    def limits(self) -> frozenset[Limit]:
        """Return what flows are held to."""


@dataclass(slots=True)
class TopologySide:
    """What a topology demands."""

    topology: Topology
    _routing: Routing = field(init=False)
    _crossings: dict[str, list[Permitted]] = field(init=False)

    def __post_init__(self) -> None:
        self._routing = Routing(self.topology)
        self._crossings = crossings(self.topology, self._routing)

    @property
    def firewalls(self) -> tuple[str, ...]:
        """Return its firewalls."""
        return tuple(self.topology.firewalls)

    def names(self, firewall: str) -> frozenset[str]:
        """Return the names of a firewall's interfaces."""
        found = self.topology.firewalls.get(firewall)
        return frozenset() if found is None else frozenset(interface.name for interface in found.interfaces)

    def passed(self, firewall: str, space: Space) -> Passed:
        """Return what a firewall must pass."""
        found = self.topology.firewalls.get(firewall)
        if found is None:
            return nothing(space)
        demanded = Demands(self.topology, self._routing, found, space, self._crossings[firewall]).demanded()
        by_flow = _ordered(self.topology, demanded, space)
        ways = {way: space.union([sets[way] for sets in by_flow.values() if way in sets]) for way in Way}
        return Passed(ways, by_flow)

    def way(self, client: str, server: str) -> tuple[str, ...]:
        """Return the firewalls between two nodes, or before a firewall; nothing if one is neither."""
        source = self.topology.nodes.get(client)
        name = server.partition(" ")[0]
        end = self.topology.nodes.get(name) or self.topology.firewalls.get(name)
        interface = None if source is None or end is None else self._routing.end_of(source, end)
        if source is None or interface is None:
            return ()
        return tuple(hop.firewall for hop in self._routing.path(source.interface.segment, interface.segment) or ())

    def limits(self) -> frozenset[Limit]:
        """Return what flows are held to, on every firewall that they cross."""
        return frozenset(
            Limit(each.flow.id, text, firewall)
            for firewall, permitted in self._crossings.items()
            for each in permitted
            for text in _limits(self.topology, each.flow)
        )


@dataclass(slots=True)
class BuildSide:
    """What rulesets do, by firewall."""

    rulesets: Mapping[str, Ruleset]

    @property
    def firewalls(self) -> tuple[str, ...]:
        """Return its firewalls."""
        return tuple(self.rulesets)

    def names(self, firewall: str) -> frozenset[str]:
        """Return the names of interfaces that a ruleset asks for."""
        found = self.rulesets.get(firewall)
        return frozenset() if found is None else found.names()

    def passed(self, firewall: str, space: Space) -> Passed:
        """Return what a ruleset passes, if no limit is reached and every relay runs."""
        found = self.rulesets.get(firewall)
        if found is None:
            return nothing(space)
        judged = judge(firewall, found, space)
        diverted = space.possibly(space.union(list(judged.diverted.values())))
        ways = {
            Way.FORWARDED: space.possibly(judged.forwarded),
            Way.DIVERTED: diverted,
            Way.DELIVERED: space.possibly(judged.delivered) & ~diverted,
            Way.SENT: space.possibly(judged.sent),
        }
        by_flow: dict[str, Mapping[Way, PacketSet]] = {"relay": {Way.DELIVERED: _back_to_relay(space)}}
        for flow, packets in (*_own_needs(space), *_chains(judged)):
            by_flow[flow] = dict.fromkeys(Way, packets)
        return Passed(ways, by_flow)

    def limits(self) -> frozenset[Limit]:
        """Return the limits that decide something, by chain."""
        return frozenset(
            Limit(chain, text, firewall)
            for firewall, ruleset in self.rulesets.items()
            for chain, texts in _deciding(ruleset).items()
            for text in texts or (UNLIMITED,)
        )


def nothing(space: Space) -> Passed:
    """Return what a firewall passes that is not there."""
    return Passed(dict.fromkeys(Way, space.false), {})


def space_of(sides: tuple[Side, ...], firewalls: Iterable[str], family: Family) -> Space:
    """Return a space in which both sides of some firewalls can be compared."""
    names = (side.names(firewall) for side in sides for firewall in firewalls)
    return Space.over(family, {LOOPBACK}.union(*names))


def _ordered(topology: Topology, demanded: Demanded, space: Space) -> dict[str, dict[Way, PacketSet]]:
    """Return demands by flow, in the topology's order, within the packets that can come this way."""
    fresh = space.valid & ~space.fragments()
    for each in (fields.MARK, fields.ZONE, fields.CT_MARK):
        fresh &= space.where(each, 0)
    arriving = fresh & ~space.interface(fields.IIF, ("", LOOPBACK))
    leaving = ~space.interface(fields.OIF, ("",))
    found: dict[str, dict[Way, PacketSet]] = {}
    for way, sets, domain in (
        (Way.FORWARDED, demanded.forwarded, arriving & leaving),
        (Way.DIVERTED, demanded.diverted, arriving),
        (Way.DELIVERED, demanded.delivered, arriving),
        (Way.SENT, demanded.sent, fresh & leaving),
    ):
        for flow, packets in sets.items():
            if way is Way.DELIVERED and flow in demanded.diverted:
                continue
            found.setdefault(flow, {})[way] = packets & domain
    order = {flow: place for place, flow in enumerate(topology.flows)}
    return dict(sorted(found.items(), key=lambda item: order.get(item[0], len(order))))


def _chains(judged: Judged) -> Iterator[tuple[str, PacketSet]]:
    """Yield what comes to the chains of flows, by flow."""
    found: dict[str, list[PacketSet]] = {}
    for (chain, number), packets in judged.kernel.record.reached.items():
        flow = _flow_of(chain.name)
        if flow is not None and number == 1:
            found.setdefault(flow, []).append(judged.space.possibly(packets))
    for flow, sets in found.items():
        yield flow, judged.space.union(sets)


def _back_to_relay(space: Space) -> PacketSet:
    answers = space.in_state(State.ESTABLISHED) & space.where(fields.DIRECTION, REPLY)
    return answers & space.where(fields.TRANSPARENT, 1) & space.where(fields.PROTOCOL, fields.TCP)


def _own_needs(space: Space) -> Iterator[tuple[str, PacketSet]]:
    """Yield what belongs to no flow, but every network needs."""
    related = space.in_state(State.RELATED)
    if space.family is Family.IPV4:
        unreachable = space.where(fields.PROTOCOL, fields.ICMP) & space.where(fields.SPORT, _FRAGMENTATION_NEEDED)
        yield "path-mtu", related & unreachable
        return
    control = space.where(fields.PROTOCOL, fields.ICMPV6)
    yield "path-mtu", related & control & space.having(fields.SPORT, 0xFF00, _PACKET_TOO_BIG)
    discovery = [space.where(fields.SPORT, kind) & space.where(fields.TTL, 255) for kind in _DISCOVERY]
    yield "neighbours", control & space.union(discovery)


def _flow_of(chain: str) -> str | None:
    """Return the flow that a chain of a compiled ruleset judges (ids have no ``_``)."""
    return next((chain[len(each) :].replace("_", "-") for each in _FLOW_CHAINS if chain.startswith(each)), None)


def _deciding(ruleset: Ruleset) -> dict[str, tuple[str, ...]]:
    """Return the limits that decide something, by flow or other chain."""
    found: dict[str, tuple[str, ...]] = {}
    for rule in ruleset.rules():
        limited = any(isinstance(each, Unknown) for each in rule.statements)
        deciding = any(_decides(each) for each in rule.statements)
        texts = [match[0] for match in _LIMIT.finditer(rule.text)] if limited and deciding else []
        chain = _flow_of(rule.chain.name) or str(rule.chain)
        found[chain] = tuple(dict.fromkeys((*found.get(chain, ()), *texts)))
    return found


def _decides(statement: object) -> bool:
    if isinstance(statement, Verdict):
        return statement.kind is not VerdictKind.CONTINUE
    return isinstance(statement, Divert)


def _limits(topology: Topology, flow: Flow) -> Iterator[str]:
    limits = flow.limits
    yield f"{limits.rate} new connections each second"
    yield f"{limits.connections} connections at once"
    each = source_limits(topology, flow)
    if each.rate is not None:
        yield f"{each.rate} new connections each second from each source"
    if each.connections is not None:
        yield f"{each.connections} connections at once from each source"
