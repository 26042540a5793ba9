"""What a topology demands of one firewall's kernel, as sets of packets: from topology and routing alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network

from netpolicy.intent.routing import Routing
from netpolicy.proof import fields
from netpolicy.proof.fields import ACK, FIN, ORIGINAL, REPLY, RST, SYN, Family, Field, State
from netpolicy.proof.hours import open_hours
from netpolicy.proof.judged import LOOPBACK
from netpolicy.proof.model import Span
from netpolicy.proof.packetset import PacketSet, Space
from netpolicy.topology.ends import End, flow_groups
from netpolicy.topology.link_local import link_local
from netpolicy.topology.model import Address, Assurance, Firewall, Flow, Node, PortRange, Prefix, Topology

_SOLICITATION, _ADVERTISEMENT, _LISTENER_REPORT = 135, 136, 143
"""ICMPv6 types (RFC 4861, RFC 9777)."""
_LINK_LOCAL = (0xFE80 << 112, (0xFEC0 << 112) - 1)
_ALL_MLDV2_ROUTERS = 0xFF02 << 112 | 0x16


@dataclass(frozen=True, slots=True)
class Permitted:
    """One pair of ends in one family where its way crosses one firewall."""

    flow: Flow
    source: Node
    destination: End
    ingress: str
    egress: str | None
    """None: it ends on the firewall."""
    source_address: Address
    destination_address: Address

    @property
    def relayed(self) -> bool:
        """Whether the firewall's relay takes the connection."""
        return self.flow.assurance is Assurance.TERMINATE


def crossings(topology: Topology, routing: Routing) -> dict[str, list[Permitted]]:
    """Return every permitted pair where its way crosses a firewall, by firewall."""
    found: dict[str, list[Permitted]] = {firewall: [] for firewall in topology.firewalls}
    for flow in topology.effective_flows():
        for group in flow_groups(topology, flow):
            for source, destination in group.pairs():
                for firewall, each in _crossed(routing, flow, source, destination):
                    found[firewall].append(each)
    return found


def _crossed(routing: Routing, flow: Flow, source: Node, destination: End) -> Iterator[tuple[str, Permitted]]:
    interface = routing.end_of(source, destination)
    path = routing.path(source.interface.segment, interface.segment) if interface else None
    if interface is None or path is None:
        return
    for a in source.interface.addresses:
        for b in interface.addresses:
            if a.version != b.version:
                continue
            for hop in path:
                yield (
                    hop.firewall,
                    Permitted(flow, source, destination, hop.in_interface, hop.out_interface, a, b),
                )
            if isinstance(destination, Firewall):
                yield destination.id, Permitted(flow, source, destination, interface.name, None, a, b)


@dataclass(frozen=True, slots=True)
class Demanded:
    """What one firewall must pass on and take, by flow, and nothing else; beside flows, what the network itself needs.

    Keys that are no flow's id: ``neighbours``, ``relay`` (what comes back to the relay), ``loopback``.  ICMP errors are
    not among them: no connection needs one.
    """

    forwarded: dict[str, PacketSet]
    diverted: dict[str, PacketSet]
    delivered: dict[str, PacketSet]
    sent: dict[str, PacketSet]
    limited: PacketSet
    """Of all of them, what may be refused since it is too much."""


@dataclass(slots=True)
class Demands:
    """Works out the demands on one firewall."""

    topology: Topology
    routing: Routing
    firewall: Firewall
    space: Space
    permitted: list[Permitted]
    """Where permitted pairs cross it."""
    _behind: dict[str, list[Prefix]] = field(init=False, default_factory=dict)
    _open: dict[str, PacketSet] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        version = self.space.family.version
        self.permitted = [each for each in self.permitted if each.source_address.version == version]
        self._behind = {interface.name: [] for interface in self.firewall.interfaces}
        for segment in self.topology.segments.values():
            interface = self.routing.interface_towards(self.firewall, segment.id)
            if interface is not None:
                here = [prefix for prefix in segment.prefixes if prefix.version == version]
                self._behind[interface.name].extend(here)

    def demanded(self) -> Demanded:
        """Return all of it."""
        sound, whole = self._sound(), ~self.space.fragments()
        forwarded, diverted, delivered, sent = self._by_flow(), {}, {}, {}
        for flow, relayed, onward in self._relayed():
            diverted[flow] = sound & relayed
            sent[flow] = onward
        local = {each.flow.id for each in self.permitted if not each.relayed and each.egress is None}
        for flow in local:
            delivered[flow], sent[flow] = self._local(flow)
        delivered |= diverted
        return Demanded(
            forwarded={flow: sound & packets for flow, packets in forwarded.items()},
            diverted=diverted,
            delivered={
                **{flow: sound & packets for flow, packets in delivered.items()},
                "neighbours": self._solicitation(),
                "relay": sound & self._back_to_relay(),
            },
            sent={
                **{flow: whole & packets & self.towards(fields.DADDR) for flow, packets in sent.items()},
                "neighbours": whole & self._own_discovery(),
                "loopback": self.space.interface(fields.OIF, (LOOPBACK,)),
            },
            limited=self._limited(),
        )

    def _sound(self) -> PacketSet:
        """Return what is whole, not at the end of its life, and comes from where its source lives to where it may."""
        space = self.space
        found = ~space.fragments() & space.where(fields.TTL, 2, 255)
        if space.family is Family.IPV4:
            found &= space.where(fields.HEADER_LENGTH, 5)
        else:
            found &= self._plain()
        known = [prefix for prefixes in self._behind.values() for prefix in prefixes]
        nobody, own = self._addresses(self._reserved()), self._addresses(self._own())
        source = space.union(
            [
                space.interface(fields.IIF, (interface,)) & self._within(fields.SADDR, prefixes)
                for interface, prefixes in self._behind.items()
            ]
        )
        return (
            found
            & self._silent()
            & source
            & ~nobody(fields.SADDR)
            & ~own(fields.SADDR)
            & (self._within(fields.DADDR, known) | own(fields.DADDR))
            & ~nobody(fields.DADDR)
        )

    def _silent(self) -> PacketSet:
        """Return what does not speak before a handshake or after the end: what has SYN or RST has nothing else.

        RFC 9293 lets both carry data, and RFC 7413 asks for it; TLS has nothing to say there.
        """
        space = self.space
        neither = space.having(fields.TCP_FLAGS, SYN | RST, 0)
        return ~space.where(fields.PROTOCOL, fields.TCP) | neither | space.bare()

    def _by_flow(self) -> dict[str, PacketSet]:
        """Return what the kernel passes on, by flow: both directions of connections that it does not relay."""
        space = self.space
        parts: dict[str, list[PacketSet]] = {}
        for each in self.permitted:
            if each.relayed or each.egress is None:
                continue
            there = space.interface(fields.IIF, (each.ingress,)) & space.interface(fields.OIF, (each.egress,))
            back = space.interface(fields.IIF, (each.egress,)) & space.interface(fields.OIF, (each.ingress,))
            parts.setdefault(each.flow.id, []).append(self._opening(each) & there | self._answering(each) & back)
        return {flow: space.union(sets) for flow, sets in parts.items()}

    def _relayed(self) -> Iterator[tuple[str, PacketSet, PacketSet]]:
        """Yield, by flow, what is handed to the relay and what the relay may say."""
        space = self.space
        taken: dict[str, list[PacketSet]] = {}
        said: dict[str, list[PacketSet]] = {}
        for each in self.permitted:
            if each.relayed:
                taken.setdefault(each.flow.id, []).append(
                    self._opening(each) & space.interface(fields.IIF, (each.ingress,))
                )
                said.setdefault(each.flow.id, []).append(self._opening(each) | self._answering(each))
        for flow, sets in taken.items():
            yield flow, space.union(sets), space.union(said[flow])

    def _local(self, flow: str) -> tuple[PacketSet, PacketSet]:
        """Return what the firewall itself takes of a flow that ends on it, and its answers."""
        space = self.space
        here = [each for each in self.permitted if each.flow.id == flow and not each.relayed and each.egress is None]
        taken = [self._opening(each) & space.interface(fields.IIF, (each.ingress,)) for each in here]
        said = [self._answering(each) & space.interface(fields.OIF, (each.ingress,)) for each in here]
        return space.union(taken), space.union(said)

    def _opening(self, each: Permitted) -> PacketSet:
        """Return what the client says: SYN alone first, then whatever belongs to the connection."""
        space = self.space
        syn = space.having(fields.TCP_FLAGS, FIN | SYN | RST | ACK, SYN)
        state = space.in_state(State.NEW) & syn | space.in_state(State.ESTABLISHED)
        return (
            self._tcp(each, each.source_address, each.destination_address, fields.DPORT)
            & state
            & space.where(fields.DIRECTION, ORIGINAL)
        )

    def _answering(self, each: Permitted) -> PacketSet:
        """Return what the server says."""
        space = self.space
        return (
            self._tcp(each, each.destination_address, each.source_address, fields.SPORT)
            & space.in_state(State.ESTABLISHED)
            & space.where(fields.DIRECTION, REPLY)
        )

    def _tcp(self, each: Permitted, source: Address, destination: Address, port: Field) -> PacketSet:
        space = self.space
        flow = each.flow
        if flow.id not in self._open:
            self._open[flow.id] = open_hours(space, flow, self.topology.timezone)
        return (
            space.where(fields.PROTOCOL, fields.TCP)
            & self._ports(port, self.topology.services[flow.service].ports)
            & space.where(fields.DADDR, int(destination))
            & space.where(fields.SADDR, int(source))
            & self._open[flow.id]
        )

    def _ports(self, wanted: Field, ports: Iterable[PortRange]) -> PacketSet:
        return self.space.union([self.space.where(wanted, each.first, each.last) for each in ports])

    def _solicitation(self) -> PacketSet:
        """Return neighbour solicitations from the segments that the firewall stands on (RFC 4861)."""
        space = self.space
        if space.family is Family.IPV4 or not any(self._own()):
            return space.false
        near = space.false
        for interface in self.firewall.interfaces:
            prefixes = [prefix for prefix in self.topology.segments[interface.segment].prefixes if prefix.version == 6]
            source = self._within(fields.SADDR, prefixes) | space.where(fields.SADDR, *_LINK_LOCAL)
            near |= space.interface(fields.IIF, (interface.name,)) & source
        nobody, own = self._addresses(self._reserved()), self._addresses(self._own())
        return (
            self._discovery(_SOLICITATION)
            & self._plain()
            & near
            & ~nobody(fields.SADDR)
            & ~own(fields.SADDR)
            & ~space.in_state(State.INVALID)
        )

    def _neighbours(self) -> PacketSet:
        """Return what comes from hosts that the topology has on the firewall's segments; link-local by EUI-64, too."""
        topology, space = self.topology, self.space
        found = space.false
        for own in self.firewall.interfaces:
            beside = [node.interface for node in topology.nodes.values()]
            beside += [each for other in topology.firewalls.values() for each in other.interfaces]
            near = [each for each in beside if each.segment == own.segment and each is not own]
            addresses = [(address, each.mac) for each in near for address in each.addresses if address.version == 6]
            named = self._addresses(each for address, mac in addresses for each in (address, link_local(mac)))
            found |= space.interface(fields.IIF, (own.name,)) & named(fields.SADDR)
        return found

    def _own_discovery(self) -> PacketSet:
        """Return what the firewall must say so that its neighbours find it."""
        space = self.space
        if space.family is Family.IPV4 or not any(self._own()):
            return space.false
        report = (
            space.where(fields.PROTOCOL, fields.ICMPV6)
            & space.having(fields.SPORT, 0xFF00, _LISTENER_REPORT << 8)
            & space.where(fields.DADDR, _ALL_MLDV2_ROUTERS)
            & space.where(fields.TTL, 1)
        )
        return self._discovery(_ADVERTISEMENT) | report

    def _discovery(self, kind: int) -> PacketSet:
        space = self.space
        return (
            space.where(fields.PROTOCOL, fields.ICMPV6)
            & space.where(fields.SPORT, kind << 8)
            & space.where(fields.TTL, 255)
        )

    def _plain(self) -> PacketSet:
        """Return what has no extension headers (RFC 8200)."""
        space = self.space
        return ~space.union([space.where(fields.NEXT_HEADER, number) for number in fields.WALKED])

    def _back_to_relay(self) -> PacketSet:
        """Return what servers answer to the relay's own connections, whose ends are not the firewall's addresses."""
        space = self.space
        services = {each.flow.service for each in self.permitted if each.relayed}
        ports = [port for service in services for port in self.topology.services[service].ports]
        return (
            space.where(fields.PROTOCOL, fields.TCP)
            & self._ports(fields.SPORT, ports)
            & ~self._ports(fields.DPORT, ports)
            & space.where(fields.TRANSPARENT, 1)
            & space.in_state(State.ESTABLISHED)
            & space.where(fields.DIRECTION, REPLY)
        )

    def _limited(self) -> PacketSet:
        space = self.space
        parts = [self._opening(each) for each in self.permitted]
        return space.union(parts) & space.in_state(State.NEW) | self._solicitation() & ~self._neighbours()

    def connections(self) -> PacketSet:
        """Return what belongs to connections that may have begun, whatever its state."""
        space = self.space
        clock = (fields.DAY, fields.HOUR, fields.TIME)
        parts = [self._opening(each) | self._answering(each) for each in self.permitted]
        return space.without(space.union(parts), (fields.STATE, fields.TCP_FLAGS, *clock))

    def towards(self, wanted: Field) -> PacketSet:
        """Return what leaves by the interface behind which its destination lives."""
        return self.space.union(
            [
                self.space.interface(fields.OIF, (interface,)) & self._within(wanted, prefixes)
                for interface, prefixes in self._behind.items()
            ]
        )

    def _within(self, wanted: Field, prefixes: Iterable[Prefix]) -> PacketSet:
        space = self.space
        spans = [Span(int(prefix.network_address), int(prefix.broadcast_address)) for prefix in prefixes]
        return space.union([space.among(space.bits(wanted), span) for span in spans])

    def _addresses(self, addresses: Iterable[Address]) -> Callable[[Field], PacketSet]:
        numbers = [int(address) for address in addresses]
        return lambda wanted: self.space.union([self.space.where(wanted, number) for number in numbers])

    def _own(self) -> Iterator[Address]:
        version = self.space.family.version
        for interface in self.firewall.interfaces:
            yield from (address for address in interface.addresses if address.version == version)

    def _reserved(self) -> Iterator[Address]:
        """Yield addresses of its segments that are nobody's: directed broadcast, subnet-router anycast (RFC 4291)."""
        version = self.space.family.version
        for interface in self.firewall.interfaces:
            for prefix in self.topology.segments[interface.segment].prefixes:
                if prefix.version == version and prefix.num_addresses > 2:
                    yield prefix.broadcast_address if isinstance(prefix, IPv4Network) else prefix.network_address
