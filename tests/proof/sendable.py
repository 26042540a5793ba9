"""What a sender on a wire can bring about, of all that the diagrams tell apart.

Not: what the host itself says, limits that are reached, other hours than now, sockets of the relay, connections that
were never let begin, states that the kernel's connection tracking gives no such packet, and TCP headers without room
for the number by which a witness is known again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from conformance.probe.shape import TAIL
from netpolicy.proof import fields
from netpolicy.proof.expected import Demands
from netpolicy.proof.fields import ACK, FIN, RST, SYN, Family, Field, State
from netpolicy.proof.judged import Judged
from netpolicy.proof.model import Unknown
from netpolicy.proof.packetset import PacketSet, Space
from netpolicy.proof.written import Chance, Listens

_BEGINNING = {Family.IPV4: (8, 13, 15, 17), Family.IPV6: (128, 139)}
"""ICMP types that begin something (nf_conntrack_proto_icmp.c, nf_conntrack_proto_icmpv6.c)."""
_ERRORS = {Family.IPV4: (3, 4, 5, 11, 12), Family.IPV6: (1, 2, 3, 4)}
_UNTRACKED = (130, 131, 132, 133, 134, 135, 136, 137, 143)


@dataclass(slots=True)
class Sendable:
    """At one firewall, at one instant."""

    demands: Demands
    when: datetime

    @property
    def space(self) -> Space:
        """Of the packets."""
        return self.demands.space

    def seen(self, judged: Judged) -> tuple[PacketSet, PacketSet]:
        """Return what of a ruleset's doing can be seen from outside: what comes out, what is taken."""
        space = self.space
        world = self._possible() & self._certain(judged)
        taken = space.union(list(judged.diverted.values())) | judged.delivered & self._own()
        out = judged.forwarded & world & self.demands.towards(fields.DADDR) & ~self._own()
        return space.possibly(out), space.possibly(taken & world)

    def _possible(self) -> PacketSet:
        space, family = self.space, self.space.family
        now = self.when.astimezone(UTC)
        second = (now.hour * 60 + now.minute) * 60 + now.second
        clock = space.where(fields.DAY, now.isoweekday() % 7) & space.where(fields.HOUR, second)
        clock &= space.where(fields.TIME, int(now.timestamp()))
        control = fields.ICMP if family is Family.IPV4 else fields.ICMPV6
        syn = space.where(fields.PROTOCOL, fields.TCP) & space.having(fields.TCP_FLAGS, SYN | ACK | FIN | RST, SYN)
        other = ~space.where(fields.PROTOCOL, fields.TCP) & ~space.where(fields.PROTOCOL, control)
        new = space.in_state(State.NEW) & (syn | other | self._control(control, _BEGINNING[family]))
        # An error about a connection is told to one of its ends.
        ends = space.union([space.where(fields.DADDR, each) for each in self._ends()])
        related = space.in_state(State.RELATED) & self._control(control, _ERRORS[family]) & ends
        untracked = space.in_state(State.UNTRACKED) & self._control(control, _UNTRACKED)
        alive = space.in_state(State.ESTABLISHED) & self.demands.connections()
        states = space.in_state(State.INVALID) | new | related | untracked | alive
        return clock & states & space.where(fields.TRANSPARENT, 0) & ~self._short()

    def _short(self) -> PacketSet:
        """Return the segments that hold no number: eight bytes of data, or of an option with its kind and length."""
        space, least = self.space, fields.bare_length(self.space.family, 5) + TAIL.size
        options = space.where(fields.DATA_OFFSET, 6, 15) & space.where(fields.LENGTH, 0, least + 1)
        return space.where(fields.PROTOCOL, fields.TCP) & (space.where(fields.LENGTH, 0, least - 1) | options)

    def _ends(self) -> Iterator[int]:
        for each in self.demands.permitted:
            yield int(each.source_address)
            yield int(each.destination_address)

    def _control(self, protocol: int, types: tuple[int, ...]) -> PacketSet:
        space = self.space
        kinds = [space.having(fields.SPORT, 0xFF00, each << 8) for each in types]
        return space.where(fields.PROTOCOL, protocol) & space.union(kinds)

    def _certain(self, judged: Judged) -> PacketSet:
        """Return the packets for which no limit is reached, and every relay listens."""
        space = self.space
        everything = space.union([judged.forwarded, judged.delivered])
        found = space.true
        for key in space.depends_on(everything):
            bit = space.unknown(key)
            if isinstance(key, Listens):
                found &= bit
            elif isinstance(key, Chance):
                chain, number = key.unit
                statement = judged.ruleset.chains[chain].rules[number - 1].statements[key.place]
                found &= ~bit if isinstance(statement, Unknown) and "inv True" in statement.text else bit
        return found

    def _own(self) -> PacketSet:
        own = [
            int(address)
            for each in self.demands.firewall.interfaces
            for address in each.addresses
            if address.version == self.space.family.version
        ]
        wanted: Field = fields.DADDR
        return self.space.union([self.space.where(wanted, each) for each in own])
