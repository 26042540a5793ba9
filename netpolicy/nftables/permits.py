"""What flows permit: one verdict map for each crossing and family, one chain for each flow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from netpolicy.intent.model import Direction, FirewallIntent, FlowIntent, Permit
from netpolicy.nftables.denials import LOG_LIMIT
from netpolicy.nftables.hours import expiry_match, hour_matches
from netpolicy.nftables.names import ACCEPTED_MARK, PairNames, deny_chain, flow_name, identifier
from netpolicy.nftables.text import block, collection, quoted, remark
from netpolicy.reasons import DenyReason

ACCEPT = f"meta mark set {ACCEPTED_MARK:#x} accept"

_FAMILIES = {4: ("ip", "ipv4_addr"), 6: ("ip6", "ipv6_addr")}


@dataclass(slots=True)
class Crossing:
    """The permits from one interface to another one, or from one interface to the firewall itself."""

    in_interface: str
    out_interface: str | None
    permits: list[Permit] = field(default_factory=list)

    def of_family(self, family: int) -> list[Permit]:
        """Return the permits of one family."""
        return [permit for permit in self.permits if permit.family == family]


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
        for permit in intent.permits:
            out = permit.out_interface if permit.direction is Direction.FORWARD else None
            key = (permit.in_interface, out)
            self._crossings.setdefault(key, Crossing(*key)).permits.append(permit)

    def crossing(self, in_interface: str, out_interface: str | None) -> Crossing | None:
        """Return the permits of a crossing, None when nothing is permitted there."""
        return self._crossings.get((in_interface, out_interface))

    def collections(self) -> Iterator[list[str]]:
        """Yield every map and set."""
        for crossing in self._crossings.values():
            for family, (_, address_type) in _FAMILIES.items():
                permits = crossing.of_family(family)
                elements = [element for permit in permits if self._paired(permit) for element in _elements(permit)]
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
                    f"{permit.transport} dport {_ports(permit)} goto {flow_name(permit.flow)}"
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
                    f"{permit.transport} sport {_ports(permit)} goto {flow_name(permit.flow)}"
                )

    def flow_chains(self) -> Iterator[list[str]]:
        """Yield the chains that judge what is permitted by address and port: time, state, limits."""
        for flow in self._intent.flows:
            yield from _flow_chains(self._intent, flow)

    def _paired(self, permit: Permit) -> bool:
        return len(permit.sources) * len(permit.destinations) * len(permit.ports) <= self._max_pairs

    def _rectangles(self, permits: list[Permit]) -> Iterator[tuple[int, Permit]]:
        return ((number, permit) for number, permit in enumerate(permits) if not self._paired(permit))

    def _map(self, crossing: Crossing | None, family: int) -> str:
        assert crossing is not None  # noqa: S101 - narrowed by _by_family, which yields nothing for None
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


def _elements(permit: Permit) -> Iterator[str]:
    for source in permit.sources:
        for destination in permit.destinations:
            for port in permit.ports:
                yield (
                    f"{source} . {destination} . {permit.transport} . {port} "
                    f"comment {quoted(permit.flow)} : goto {flow_name(permit.flow)}"
                )


def _ports(permit: Permit) -> str:
    return "{ " + ", ".join(str(port) for port in permit.ports) + " }"


def _flow_chains(intent: FirewallIntent, flow: FlowIntent) -> Iterator[list[str]]:
    """Yield a flow's chain; a flow with service hours has a second one for while it is open."""
    gate: list[str] = []
    if flow.expires is not None:
        gate.append(f"{expiry_match(flow.expires)} goto {deny_chain(DenyReason.EXPIRED)}")
    if not flow.limits.windows:
        yield block(f"chain {flow_name(flow.id)}", [*_comment(flow), *gate, *_connection_rules(intent, flow)])
        return
    opened = f"open_{identifier(flow.id)}"
    gate.extend(f"{match} goto {opened}" for match in hour_matches(flow.limits.windows, intent.timezone))
    gate.append(f"goto {deny_chain(DenyReason.OUTSIDE_HOURS)}")
    yield block(f"chain {opened}", _connection_rules(intent, flow))
    yield block(f"chain {flow_name(flow.id)}", [*_comment(flow), *gate])


def _comment(flow: FlowIntent) -> list[str]:
    return [
        remark(str(flow.title)),
        remark(f"basis: {flow.basis}; owner: {flow.owner}; assurance: {flow.assurance}"),
    ]


def _connection_rules(intent: FirewallIntent, flow: FlowIntent) -> Iterator[str]:
    yield f"ct state established {ACCEPT}"
    # A new connection begins with SYN alone; ct state new by itself would take a mid-stream segment for one.
    yield f"ct state != new goto {deny_chain(DenyReason.NOT_SYN)}"
    yield f"tcp flags & (fin | syn | rst | ack) != syn goto {deny_chain(DenyReason.NOT_SYN)}"
    rate = flow.limits.rate
    if rate is not None:
        yield f"limit rate over {rate}/second burst {rate} packets goto {deny_chain(DenyReason.RATE)}"
    if flow.limits.connections is not None:
        yield f"ct count over {flow.limits.connections} goto {deny_chain(DenyReason.CONNECTIONS)}"
    prefix = f"netpolicy fw={intent.id} flow={flow.id} "
    yield f"{LOG_LIMIT} log prefix {quoted(prefix)} level info"
    yield f"counter name {flow_name(flow.id)} {ACCEPT} comment {quoted(flow.id)}"
