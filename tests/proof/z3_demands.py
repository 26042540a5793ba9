"""What a topology demands of one firewall, as formulas of z3: docs/ruleset.md and RFCs, written a second time.

Shared with :mod:`netpolicy.proof.expected`: which permitted pairs cross which firewall, which is routing, not sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import z3

from netpolicy.intent.routing import Routing
from netpolicy.proof import fields
from netpolicy.proof.expected import Permitted
from netpolicy.proof.fields import Family, Field, State
from netpolicy.topology.model import Firewall, Flow, PortRange, Prefix, Topology
from tests.proof.z3_packet import NO, YES, Symbols, both, either, opposite

_WEEK = 7 * 86400
_BEHIND_FIXED_HEADER = (0, 43, 44, 51, 60)
"""What may stand right after IPv6's fixed header and is no transport protocol (RFC 8200, RFC 4302)."""


@dataclass(frozen=True, slots=True, repr=False)
class Demand:
    """By the names of :class:`~netpolicy.proof.expected.Demanded`, each a union over flows."""

    forwarded: z3.BoolRef
    diverted: z3.BoolRef
    delivered: z3.BoolRef
    sent: z3.BoolRef
    limited: z3.BoolRef

    def named(self) -> dict[str, z3.BoolRef]:
        """Return all of them by name."""
        return {name: getattr(self, name) for name in ("forwarded", "diverted", "delivered", "sent", "limited")}


@dataclass(frozen=True, slots=True, repr=False)
class Wanted:
    """Writes down the demands on a firewall."""

    topology: Topology
    routing: Routing
    firewall: Firewall
    packet: Symbols
    permitted: tuple[Permitted, ...]
    """Where pairs of the packet's family cross it."""

    def all(self) -> Demand:
        """Return them."""
        packet = self.packet
        sound, here, forwarded, said = self._sound(), [], [], []
        diverted, limited = [], [both(self._solicited(), opposite(self._neighbour()))]
        for each in self.permitted:
            asks, answers = self._asks(each), self._answers(each)
            if each.relayed:
                diverted.append(self._crosses(each))
                said += [asks, answers]
            elif each.egress is None:
                here.append(self._crosses(each))
                said.append(both(answers, packet.at(fields.OIF, each.ingress)))
            else:
                forwarded.append(self._crosses(each))
            limited.append(both(asks, packet.in_state(State.NEW)))
        relayed = both(sound, either(diverted))
        return Demand(
            forwarded=both(sound, either(forwarded)),
            diverted=relayed,
            delivered=either([relayed, self._solicited(), both(sound, either([*here, self._returns_to_relay()]))]),
            sent=either(
                [
                    both(
                        opposite(packet.fragment()),
                        either([both(either(said), self._leaves_right()), self._advertises()]),
                    ),
                    packet.at(fields.OIF, "lo"),
                ]
            ),
            limited=either(limited),
        )

    def by_flow(self) -> dict[str, z3.BoolRef]:
        """Return what the firewall passes on or takes, itself or by its relay, for each flow."""
        parts: dict[str, list[z3.BoolRef]] = {}
        for each in self.permitted:
            parts.setdefault(each.flow.id, []).append(self._crosses(each))
        return {flow: both(self._sound(), either(some)) for flow, some in parts.items()}

    def _crosses(self, each: Permitted) -> z3.BoolRef:
        """Tell whether a packet of a pair comes where it should; what the firewall says itself is not among it."""
        packet = self.packet
        asks = both(self._asks(each), packet.at(fields.IIF, each.ingress))
        if each.relayed or each.egress is None:
            return asks
        back = both(packet.at(fields.IIF, each.egress), packet.at(fields.OIF, each.ingress))
        return either([both(asks, packet.at(fields.OIF, each.egress)), both(self._answers(each), back)])

    def _sound(self) -> z3.BoolRef:
        """Tell whether a packet is whole, has a life before it, and comes from where its source lives."""
        packet = self.packet
        plain = packet[fields.HEADER_LENGTH] == 5 if packet.family is Family.IPV4 else self._plain()
        known = either(self._in(fields.DADDR, prefix) for prefixes in self._behind().values() for prefix in prefixes)
        return both(
            opposite(packet.fragment()),
            z3.UGT(packet[fields.TTL], 1),
            plain,
            self._begins_and_ends_silently(),
            self._behind_its_interface(fields.SADDR, fields.IIF),
            opposite(packet.equals(fields.SADDR, *self._reserved(), *self._own())),
            opposite(packet.equals(fields.DADDR, *self._reserved())),
            either([known, packet.equals(fields.DADDR, *self._own())]),
        )

    def _begins_and_ends_silently(self) -> z3.BoolRef:
        """Tell whether what opens or resets a connection is a TCP header alone, which asks for no Fast Open."""
        packet = self.packet
        header = 4 * z3.ZeroExt(12, packet[fields.DATA_OFFSET]) + (20 if packet.family is Family.IPV4 else 40)
        alone = both(packet[fields.LENGTH] == header, z3.UGE(packet[fields.DATA_OFFSET], 5))
        asking = either(packet[each] == 1 for each in fields.TCP_OPTIONS.values())
        marked = packet[fields.TCP_FLAGS] & 0b00110 != 0
        return z3.Implies(both(packet[fields.PROTOCOL] == 6, marked), both(alone, opposite(asking)))

    def _asks(self, each: Permitted) -> z3.BoolRef:
        packet = self.packet
        control = z3.Extract(4, 0, packet[fields.TCP_FLAGS]) & 0b10111
        return both(
            self._between(each, fields.SADDR, fields.DADDR, fields.DPORT),
            packet[fields.DIRECTION] == fields.ORIGINAL,
            either([packet.in_state(State.ESTABLISHED), both(packet.in_state(State.NEW), control == 0b00010)]),
        )

    def _answers(self, each: Permitted) -> z3.BoolRef:
        packet = self.packet
        return both(
            self._between(each, fields.DADDR, fields.SADDR, fields.SPORT),
            packet[fields.DIRECTION] == fields.REPLY,
            packet.in_state(State.ESTABLISHED),
        )

    def _between(self, each: Permitted, client: Field, server: Field, port: Field) -> z3.BoolRef:
        packet = self.packet
        return both(
            packet[fields.PROTOCOL] == fields.TCP,
            packet[client] == int(each.source_address),
            packet[server] == int(each.destination_address),
            self._port(port, self.topology.services[each.flow.service].ports),
            self.open(each.flow),
        )

    def _port(self, wanted: Field, ports: Iterable[PortRange]) -> z3.BoolRef:
        return either(self.packet.between(wanted, port.first, port.last) for port in ports)

    def open(self, flow: Flow) -> z3.BoolRef:
        """Tell whether a packet comes in the hours of a flow, before its end: in seconds of the week, in UTC."""
        zone = ZoneInfo(self.topology.timezone)
        monday = datetime(2024, 1, 1, tzinfo=zone)
        offset = monday.utcoffset()
        assert offset is not None
        conditions = []
        if flow.limits.windows:
            day = z3.ZeroExt(17, self.packet[fields.DAY])
            # Sunday is 0 here, and the last day of Python's week.
            second = day * 86400 + z3.ZeroExt(3, self.packet[fields.HOUR])
            spans: list[z3.BoolRef] = []
            for window in flow.limits.windows:
                for weekday in window.days:
                    begin, end = (timedelta(hours=at.hour, minutes=at.minute) for at in (window.start, window.end))
                    length = end - begin if end > begin else end - begin + timedelta(days=1)
                    first = timedelta(days=weekday + 1) + begin - offset
                    spans += self._of_week(second, int(first.total_seconds()), int(length.total_seconds()))
            conditions.append(either(spans))
        if flow.effective_until is not None:
            last = datetime.combine(flow.effective_until, datetime.min.time(), tzinfo=zone) + timedelta(days=1)
            conditions.append(z3.ULT(self.packet[fields.TIME], int(last.timestamp())))
        return both(*conditions)

    def _of_week(self, second: z3.BitVecRef, first: int, length: int) -> Iterator[z3.BoolRef]:
        first %= _WEEK
        yield both(z3.UGE(second, first), z3.ULT(second, min(first + length, _WEEK)))
        if first + length > _WEEK:
            yield z3.ULT(second, first + length - _WEEK)

    def _solicited(self) -> z3.BoolRef:
        """Tell whether a neighbour on a segment of the firewall asks who has an address (RFC 4861)."""
        packet = self.packet
        if packet.family is Family.IPV4 or not self._own():
            return NO
        near = []
        for interface in self.firewall.interfaces:
            segment = self.topology.segments[interface.segment]
            inside = [self._in(fields.SADDR, prefix) for prefix in segment.prefixes if prefix.version == 6]
            link_local = z3.Extract(127, 118, packet[fields.SADDR]) == 0xFE80 >> 6
            near.append(both(packet.at(fields.IIF, interface.name), either([*inside, link_local])))
        return both(
            self._discovery(135),
            self._plain(),
            either(near),
            opposite(packet.equals(fields.SADDR, *self._reserved(), *self._own())),
            opposite(packet.in_state(State.INVALID)),
        )

    def _neighbour(self) -> z3.BoolRef:
        """Tell whether the source is somebody of the topology on the segment that the packet comes from."""
        found, attached = [], [node.interface for node in self.topology.nodes.values()]
        for firewall in self.topology.firewalls.values():
            attached += firewall.interfaces
        for own in self.firewall.interfaces:
            for each in attached:
                first, *others = (int(octet, 16) for octet in each.mac.split(":"))
                made = int.from_bytes((first ^ 2, *others[:2], 0xFF, 0xFE, *others[2:]))
                for address in each.addresses:
                    if address.version == 6 and each.segment == own.segment and each is not own:
                        source = self.packet.equals(fields.SADDR, int(address), (0xFE80 << 112) + made)
                        found.append(both(self.packet.at(fields.IIF, own.name), source))
        return either(found)

    def _advertises(self) -> z3.BoolRef:
        """Tell whether the firewall answers that, or says which groups it listens to (RFC 9777)."""
        packet = self.packet
        if packet.family is Family.IPV4 or not self._own():
            return NO
        routers = packet[fields.DADDR] == (0xFF02 << 112) + 0x16
        report = both(packet[fields.PROTOCOL] == 58, z3.Extract(15, 8, packet[fields.SPORT]) == 143, routers)
        return either([self._discovery(136), both(report, packet[fields.TTL] == 1)])

    def _discovery(self, kind: int) -> z3.BoolRef:
        packet = self.packet
        return both(packet[fields.PROTOCOL] == 58, packet[fields.SPORT] == kind * 256, packet[fields.TTL] == 255)

    def _plain(self) -> z3.BoolRef:
        return opposite(self.packet.equals(fields.NEXT_HEADER, *_BEHIND_FIXED_HEADER))

    def _returns_to_relay(self) -> z3.BoolRef:
        """Tell whether a server answers a connection of the relay."""
        packet = self.packet
        services = {each.flow.service for each in self.permitted if each.relayed}
        ports = [port for service in sorted(services) for port in self.topology.services[service].ports]
        return both(
            packet[fields.PROTOCOL] == fields.TCP,
            packet[fields.TRANSPARENT] == 1,
            packet.in_state(State.ESTABLISHED),
            packet[fields.DIRECTION] == fields.REPLY,
            self._port(fields.SPORT, ports),
            opposite(self._port(fields.DPORT, ports)),
        )

    def _behind(self) -> dict[str, list[Prefix]]:
        found: dict[str, list[Prefix]] = {interface.name: [] for interface in self.firewall.interfaces}
        for segment in self.topology.segments.values():
            interface = self.routing.interface_towards(self.firewall, segment.id)
            if interface is not None:
                found[interface.name] += segment.prefixes
        return found

    def _behind_its_interface(self, address: Field, interface: Field) -> z3.BoolRef:
        return either(
            both(self.packet.at(interface, name), either(self._in(address, prefix) for prefix in prefixes))
            for name, prefixes in self._behind().items()
        )

    def _leaves_right(self) -> z3.BoolRef:
        return self._behind_its_interface(fields.DADDR, fields.OIF)

    def _in(self, wanted: Field, prefix: Prefix) -> z3.BoolRef:
        if prefix.version != self.packet.family.version:
            return NO
        bits, length = prefix.max_prefixlen, prefix.prefixlen
        if length == 0:
            return YES
        return z3.Extract(bits - 1, bits - length, self.packet[wanted]) == int(prefix.network_address) >> bits - length

    def _own(self) -> list[int]:
        addresses = [address for interface in self.firewall.interfaces for address in interface.addresses]
        return [int(address) for address in addresses if address.version == self.packet.family.version]

    def _reserved(self) -> list[int]:
        """Return addresses of its segments that are nobody's: broadcast in IPv4, subnet-router anycast in IPv6."""
        found = []
        for interface in self.firewall.interfaces:
            for prefix in self.topology.segments[interface.segment].prefixes:
                if prefix.version == self.packet.family.version and prefix.max_prefixlen - prefix.prefixlen > 1:
                    chosen = prefix.broadcast_address if prefix.version == 4 else prefix.network_address
                    found.append(int(chosen))
        return found
