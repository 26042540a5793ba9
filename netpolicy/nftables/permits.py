"""What flows permit: one verdict map for each crossing and family, one chain for each flow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from netpolicy.intent.model import Direction, FirewallIntent, FlowIntent, Permit
from netpolicy.nftables.denials import LOG_LIMIT
from netpolicy.nftables.hours import expiry_match, hour_matches
from netpolicy.nftables.names import (
    ACCEPTED_MARK,
    ADDRESS_TYPES,
    PREFIXES,
    PairNames,
    deny_chain,
    flow_name,
    identifier,
    onward_name,
)
from netpolicy.nftables.relay import divert
from netpolicy.nftables.text import block, collection, quoted, remark
from netpolicy.reasons import DenyReason
from netpolicy.topology.model import Address

ACCEPT = f"meta mark set {ACCEPTED_MARK:#x} accept"

_ROOM = 2
"""Of the sets of sources, in elements for each source."""
_FAMILIES = {family: (PREFIXES[family], ADDRESS_TYPES[family]) for family in PREFIXES}


@dataclass(slots=True)
class Crossing:
    """The permits from one interface to another one, or from one interface to the firewall itself."""

    in_interface: str
    out_interface: str | None
    permits: list[Permit] = field(default_factory=list)
    onward: bool = False
    """What the relay itself may open, and the answers that it gives."""

    def of_family(self, family: int) -> list[Permit]:
        """Return the permits of one family."""
        return [permit for permit in self.permits if permit.family == family]


@dataclass(frozen=True, slots=True)
class _PerSource:
    """What each source address of a flow is held to.

    The set gets an element for each source that comes, with a state of its own.  A source that finds no room has none,
    and the rule does not match: so what is within the limit is led on, and what is left is refused.
    """

    kind: str
    flow: str
    sources: dict[int, int]
    """How many there are, by family."""
    statement: str
    reason: DenyReason

    def _name(self, family: int) -> str:
        return f"{self.kind}{family}_{identifier(self.flow)}"

    def sets(self) -> Iterator[list[str]]:
        """Yield the sets, with room for each source twice: what has no connections left stays until it is collected."""
        for family, (_, address_type) in _FAMILIES.items():
            if self.sources[family]:
                body = [f"type {address_type}", f"size {_ROOM * self.sources[family]}", "flags dynamic"]
                yield block(f"set {self._name(family)}", body)

    def rules(self, target: str) -> Iterator[str]:
        """Yield the rules: what is within leads on to a chain."""
        for family, (prefix, _) in _FAMILIES.items():
            if self.sources[family]:
                yield f"add @{self._name(family)} {{ {prefix} saddr {self.statement} }} goto {target}"
        yield f"goto {deny_chain(self.reason)}"


class PermitEmitter:
    """Emits sets, maps and rules for the permits of one firewall.

    A rectangle of sources and destinations becomes one map element for each pair, or, when it has more than `max_pairs`
    pairs, two sets and a rule, so that the ruleset grows with the ends of a flow and not with their product.
    """

    def __init__(self, intent: FirewallIntent, names: PairNames, max_pairs: int) -> None:
        self._intent = intent
        self._names = names
        self._max_pairs = max_pairs
        self._crossings: dict[tuple[str, str | None], Crossing] = {}
        relayed = {relayed.flow for relayed in intent.relayed}
        for permit in intent.permits:
            if permit.flow in relayed:
                continue
            out = permit.out_interface if permit.direction is Direction.FORWARD else None
            key = (permit.in_interface, out)
            self._crossings.setdefault(key, Crossing(*key)).permits.append(permit)
        # Wherever they come in and go out: who lives behind which interface is judged before and after.
        permits = list(_joined(permit for permit in intent.permits if permit.flow in relayed))
        self.diverted = Crossing("relay", None, permits) if permits else None
        """What is handed to the relay."""
        self.onward = Crossing("onward", None, permits, onward=True) if permits else None
        """What the relay sends."""

    @property
    def _all(self) -> Iterator[Crossing]:
        yield from self._crossings.values()
        yield from (each for each in (self.diverted, self.onward) if each is not None)

    @property
    def forwards(self) -> bool:
        """Whether anything is passed on without a relay."""
        return any(out is not None for _, out in self._crossings)

    def crossing(self, in_interface: str, out_interface: str | None) -> Crossing | None:
        """Return the permits of a crossing, None when nothing is permitted there."""
        return self._crossings.get((in_interface, out_interface))

    def collections(self) -> Iterator[list[str]]:
        """Yield every map and set."""
        for flow in self._intent.flows:
            for held in self._per_source(flow):
                yield from held.sets()
        for crossing in self._all:
            for family, (_, address_type) in _FAMILIES.items():
                permits = crossing.of_family(family)
                paired = [permit for permit in permits if self._paired(permit)]
                elements = [element for permit in paired for element in _elements(crossing, permit)]
                if elements:
                    ranged = any(port.first != port.last for permit in permits for port in permit.ports)
                    yield collection(
                        f"map {self._map(crossing, family)}",
                        f"{address_type} . {address_type} . inet_proto . inet_service : verdict",
                        elements,
                        interval=ranged,
                        counter=True,
                    )
                for number, permit in self._rectangles(permits):
                    for end, addresses in (("from", permit.sources), ("to", permit.destinations)):
                        comment = f"comment {quoted(permit.flow)}"
                        yield collection(
                            f"set {self._rectangle_set(crossing, family, number, end)}",
                            address_type,
                            [f"{address} {comment}" for address in addresses],
                            interval=False,
                            counter=True,
                        )

    def original(self, crossing: Crossing | None) -> Iterator[str]:
        """Yield the rules for packets in the direction in which connections of `crossing` are opened."""
        for family, prefix, permits in _by_family(crossing):
            if any(self._paired(permit) for permit in permits):
                key = f"{prefix} saddr . {prefix} daddr . meta l4proto . th dport"
                yield f"ct direction original {key} vmap @{self._map(crossing, family)}"
            for number, permit in self._rectangles(permits):
                source, destination = self._rectangle_sets(crossing, family, number)
                yield (
                    f"ct direction original {prefix} saddr @{source} {prefix} daddr @{destination} "
                    f"{permit.transport} dport {_ports(permit)} goto {_chain(crossing, permit)}"
                )

    def reply(self, crossing: Crossing | None) -> Iterator[str]:
        """Yield the rules for the answers to connections of `crossing`: the same elements, read backwards."""
        established = "ct state established ct direction reply"
        for family, prefix, permits in _by_family(crossing):
            if any(self._paired(permit) for permit in permits):
                key = f"{prefix} daddr . {prefix} saddr . meta l4proto . th sport"
                yield f"{established} {key} vmap @{self._map(crossing, family)}"
            for number, permit in self._rectangles(permits):
                source, destination = self._rectangle_sets(crossing, family, number)
                yield (
                    f"{established} {prefix} daddr @{source} {prefix} saddr @{destination} "
                    f"{permit.transport} sport {_ports(permit)} goto {_chain(crossing, permit)}"
                )

    def flow_chains(self) -> Iterator[list[str]]:
        """Yield the chains that judge what is permitted by address and port: time, state, limits."""
        ports = {relayed.flow: relayed.port for relayed in self._intent.relayed}
        for flow in self._intent.flows:
            yield from self._flow_chains(flow, ports.get(flow.id))
            if flow.id in ports:
                yield from _gated(self._intent, flow, onward_name(flow.id), _onward_rules())

    def _flow_chains(self, flow: FlowIntent, port: int | None) -> Iterator[list[str]]:
        """Yield what judges a flow's packets; with a port, it is the relay that gets those that are permitted."""
        families = [family for family in _FAMILIES if any(self._of(flow, family))]
        rules = [*_total_rules(self._intent, flow, families, port)]
        for held in self._per_source(flow):
            name = f"{held.kind}_{identifier(flow.id)}"
            yield block(f"chain {name}", rules)
            rules = [*held.rules(name)]
        yield from _gated(self._intent, flow, flow_name(flow.id), [*_state_rules(families, port), *rules])

    def _per_source(self, flow: FlowIntent) -> Iterator[_PerSource]:
        """Yield what each source of a flow is held to, the last judged first.

        All of it comes before the totals: what one source is refused must not use up what the others share.
        """
        sources = {
            family: len({source for permit in self._of(flow, family) for source in permit.sources})
            for family in _FAMILIES
        }
        connections, rate = flow.per_source.connections, flow.per_source.rate
        if connections is not None:
            statement = f"ct count {connections}"
            yield _PerSource("counted", flow.id, sources, statement, DenyReason.SOURCE_CONNECTIONS)
        if rate is not None:
            statement = f"limit rate {rate}/second burst {rate} packets"
            yield _PerSource("rated", flow.id, sources, statement, DenyReason.SOURCE_RATE)

    def _of(self, flow: FlowIntent, family: int) -> Iterator[Permit]:
        return (each for each in self._intent.permits if each.flow == flow.id and each.family == family)

    def _paired(self, permit: Permit) -> bool:
        return len(permit.sources) * len(permit.destinations) * len(permit.ports) <= self._max_pairs

    def _rectangles(self, permits: list[Permit]) -> Iterator[tuple[int, Permit]]:
        return ((number, permit) for number, permit in enumerate(permits) if not self._paired(permit))

    def _map(self, crossing: Crossing | None, family: int) -> str:
        assert crossing is not None  # noqa: S101 - narrowed by _by_family, which yields nothing for None
        if crossing in (self.diverted, self.onward):
            return f"{crossing.in_interface}{family}"
        return self._names.get(f"permit{family}", crossing.in_interface, crossing.out_interface or "self")

    def _rectangle_sets(self, crossing: Crossing | None, family: int, number: int) -> tuple[str, str]:
        return (
            self._rectangle_set(crossing, family, number, "from"),
            self._rectangle_set(crossing, family, number, "to"),
        )

    def _rectangle_set(self, crossing: Crossing | None, family: int, number: int, end: str) -> str:
        return f"{self._map(crossing, family)}_{number}_{end}"


def _by_family(crossing: Crossing | None) -> Iterator[tuple[int, str, list[Permit]]]:
    if crossing is None:
        return
    for family, (prefix, _) in _FAMILIES.items():
        permits = crossing.of_family(family)
        if permits:
            yield family, prefix, permits


def _elements(crossing: Crossing, permit: Permit) -> Iterator[str]:
    for source in permit.sources:
        for destination in permit.destinations:
            for port in permit.ports:
                yield (
                    f"{source} . {destination} . {permit.transport} . {port} "
                    f"comment {quoted(permit.flow)} : goto {_chain(crossing, permit)}"
                )


def _chain(crossing: Crossing | None, permit: Permit) -> str:
    onward = crossing is not None and crossing.onward
    return onward_name(permit.flow) if onward else flow_name(permit.flow)


def _joined(permits: Iterable[Permit]) -> Iterator[Permit]:
    """Yield permits, joined where the same ends come in or go out by several interfaces."""
    found: dict[tuple[str, tuple[Address, ...]], dict[Address, None]] = {}
    first: dict[tuple[str, tuple[Address, ...]], Permit] = {}
    for permit in permits:
        key = (permit.flow, permit.sources)
        first.setdefault(key, permit)
        found.setdefault(key, {}).update(dict.fromkeys(permit.destinations))
    for key, permit in first.items():
        yield replace(permit, destinations=tuple(sorted(found[key], key=int)))


def _ports(permit: Permit) -> str:
    return "{ " + ", ".join(str(port) for port in permit.ports) + " }"


def _gated(intent: FirewallIntent, flow: FlowIntent, name: str, rules: list[str]) -> Iterator[list[str]]:
    """Yield a chain with rules; a flow with service hours has a second one for while it is open."""
    gate: list[str] = []
    if flow.expires is not None:
        gate.append(f"{expiry_match(flow.expires)} goto {deny_chain(DenyReason.EXPIRED)}")
    if not flow.limits.windows:
        yield block(f"chain {name}", [*_comment(flow), *gate, *rules])
        return
    opened = f"open_{identifier(flow.id)}" if name == flow_name(flow.id) else f"hours_{name}"
    gate.extend(f"{match} goto {opened}" for match in hour_matches(flow.limits.windows, intent.timezone))
    gate.append(f"goto {deny_chain(DenyReason.OUTSIDE_HOURS)}")
    yield block(f"chain {opened}", rules)
    yield block(f"chain {name}", [*_comment(flow), *gate])


def _comment(flow: FlowIntent) -> list[str]:
    return [
        remark(str(flow.title)),
        remark(f"basis: {flow.basis}; owner: {flow.owner}; assurance: {flow.assurance}"),
    ]


def _state_rules(families: list[int], port: int | None) -> Iterator[str]:
    if port is None:
        yield f"ct state established {ACCEPT}"
    else:
        yield from divert(families, port, "ct state established ")
        yield f"ct state established goto {deny_chain(DenyReason.RELAY)}"
    yield from _OPENING


def _total_rules(intent: FirewallIntent, flow: FlowIntent, families: list[int], port: int | None) -> Iterator[str]:
    rate = flow.limits.rate
    yield f"limit rate over {rate}/second burst {rate} packets goto {deny_chain(DenyReason.RATE)}"
    yield f"ct count over {flow.limits.connections} goto {deny_chain(DenyReason.CONNECTIONS)}"
    prefix = f"netpolicy fw={intent.id} flow={flow.id} "
    yield f"{LOG_LIMIT} log prefix {quoted(prefix)} level info"
    if port is None:
        yield f"counter name {flow_name(flow.id)} {ACCEPT} comment {quoted(flow.id)}"
    else:
        yield from divert(families, port, "", f"counter name {flow_name(flow.id)} ", f" comment {quoted(flow.id)}")
        yield f"goto {deny_chain(DenyReason.RELAY)}"


_OPENING = (
    # A new connection begins with SYN alone; ct state new by itself would take a mid-stream segment for one.
    f"ct state != new goto {deny_chain(DenyReason.NOT_SYN)}",
    f"tcp flags & (fin | syn | rst | ack) != syn goto {deny_chain(DenyReason.NOT_SYN)}",
)


def _onward_rules() -> list[str]:
    """Return what the relay's own packets are held to: its clients' limits were counted when they came."""
    return [f"ct state established {ACCEPT}", *_OPENING, ACCEPT]
