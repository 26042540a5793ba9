"""What can begin a connection across one firewall, by z3, and where connections get to, step by step without sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import z3

from netpolicy.proof import fields
from netpolicy.proof.case import Case
from netpolicy.proof.expected import Permitted
from netpolicy.proof.fields import FIELDS, State
from netpolicy.proof.packetset import PacketSet
from tests.proof.z3_exact import Exact, never, solved
from tests.proof.z3_packet import Symbols, both, either, opposite

HEADER = (fields.SADDR, fields.DADDR, fields.PROTOCOL, fields.SPORT, fields.DPORT)

Connection = tuple[int, int, str]
"""Addresses of client and server, and the service."""


@dataclass(frozen=True, slots=True, repr=False)
class Begins:
    """When a header, of a packet that comes by one interface and goes by another, begins a connection."""

    across: z3.BoolRef
    passed: z3.BoolRef
    """Of those, by being passed on; the others by way of a relay."""
    local: z3.BoolRef
    """To the firewall itself."""
    inner: list[z3.ExprRef]
    """Variables beside the header and the interfaces: of packets that are passed on, and of those a relay takes."""
    taken: list[tuple[z3.ExprRef, z3.ExprRef]]
    """Variables that have another name if a relay takes the packet."""
    said: list[tuple[z3.ExprRef, z3.ExprRef]]
    """And in what it says then."""

    def free(self) -> list[z3.ExprRef]:
        """Return the variables that do not matter."""
        return [*self.inner, *(new for _, new in (*self.taken, *self.said))]


@dataclass(frozen=True, slots=True, repr=False)
class Opening:
    """One firewall: which headers it lets begin a connection from an interface to another, or to itself."""

    theorem: Exact
    case: Case
    firewall: str
    permitted: tuple[Permitted, ...]

    def contradictions(self) -> Iterator[str]:
        """Yield headers that get through and should not, or the other way round."""
        packet, begins = self.theorem.packet, self.begins()
        for egress, opens in ((True, begins.across), (False, begins.local)):
            wanted = self._wanted(across=egress)
            model = solved(both(opens, opposite(wanted)))
            if model is not None:
                yield f"{self.firewall} lets begin {packet.packet(model)}"
            model = never(both(packet.valid(), wanted), opens, begins.free())
            if model is not None:
                yield f"{self.firewall} does not let begin {packet.packet(model)}"

    def begins(self) -> Begins:
        """Return what opens a connection across it, and to it."""
        packet, sets = self.theorem.packet, self.theorem.sets
        first = packet.in_state(State.NEW, State.UNTRACKED, State.INVALID)
        known = [each for each in FIELDS if each.family in {None, packet.family}]
        rest = [packet[each] for each in known if each not in {*HEADER, fields.IIF, fields.OIF}]
        inner = [*rest, *self.theorem.unknowns.known.values()]
        # What the relay says is another packet of the same header: it leaves where the client's does not.
        fresh = [(each, z3.Const(f"said {each}", each.sort())) for each in (*inner, packet[fields.IIF])]
        # Routing is open: what is taken may have any interface to leave by.
        leaving = (packet[fields.OIF], z3.Const("taken oifname", packet[fields.OIF].sort()))
        taken = z3.substitute(both(either(sets.diverted.values()), first), leaving)
        said = z3.substitute(both(sets.sent, first), *fresh)
        passed = both(sets.forwarded, first)
        own = [
            int(address)
            for interface in self.case.topology.firewalls[self.firewall].interfaces
            for address in interface.addresses
            if address.version == packet.family.version
        ]
        here = both(packet[fields.PROTOCOL] == fields.TCP, packet.equals(fields.DADDR, *own))
        local = both(sets.delivered, first, here, packet[fields.OIF] == 0)
        across = both(self._between_interfaces(packet), either([passed, both(taken, said)]))
        return Begins(across, passed, both(local, self._from_interface(packet)), inner, [leaving], fresh)

    def _between_interfaces(self, packet: Symbols) -> z3.BoolRef:
        names = [interface.name for interface in self.case.topology.firewalls[self.firewall].interfaces]
        return either(
            both(packet.at(fields.IIF, one), packet.at(fields.OIF, other))
            for one in names
            for other in names
            if one != other
        )

    def _from_interface(self, packet: Symbols) -> z3.BoolRef:
        return packet.at(fields.IIF, *(each.name for each in self.case.topology.firewalls[self.firewall].interfaces))

    def _wanted(self, *, across: bool) -> z3.BoolRef:
        packet = self.theorem.packet
        parts = []
        for each in self.permitted:
            if (each.egress is not None) is across:
                ports = self.case.topology.services[each.flow.service].ports
                parts.append(
                    both(
                        packet.at(fields.IIF, each.ingress),
                        packet.at(fields.OIF, each.egress or ""),
                        packet[fields.PROTOCOL] == fields.TCP,
                        packet[fields.SADDR] == int(each.source_address),
                        packet[fields.DADDR] == int(each.destination_address),
                        either(packet.between(fields.DPORT, port.first, port.last) for port in ports),
                    )
                )
        return either(parts)


def followed_connections(case: Case) -> dict[str, dict[str, set[Connection]]]:
    """Return which connections get from each segment to each other end, firewall by firewall: a search, no sets.

    It rests on every firewall letting begin exactly what it should.
    """
    version = case.space.family.version
    steps: dict[str, list[tuple[str, set[Connection]]]] = {}
    for firewall, permitted in case.permitted.items():
        found: dict[tuple[str, str], set[Connection]] = {}
        for each in permitted:
            if each.source_address.version == version:
                begin = case.routing.interface(firewall, each.ingress).segment
                end = case.routing.interface(firewall, each.egress).segment if each.egress else firewall
                connection = (int(each.source_address), int(each.destination_address), each.flow.service)
                found.setdefault((begin, end), set()).add(connection)
        for (begin, end), connections in found.items():
            steps.setdefault(begin, []).append((end, connections))
    return {segment: _search(steps, segment) for segment in case.topology.segments}


def _search(steps: Mapping[str, list[tuple[str, set[Connection]]]], origin: str) -> dict[str, set[Connection]]:
    arrived: dict[str, set[Connection]] = {}
    waiting = [(end, connections) for end, connections in steps.get(origin, ())]
    while waiting:
        here, connections = waiting.pop()
        new = connections - arrived.get(here, set())
        if new and here != origin:
            arrived.setdefault(here, set()).update(new)
            waiting += [(end, new & onward) for end, onward in steps.get(here, ())]
    return arrived


def connections_set(case: Case, connections: set[Connection]) -> PacketSet:
    """Return connections as a set of the diagrams."""
    space = case.space
    parts = []
    for source, destination, service in sorted(connections):
        ports = space.union(
            [space.where(fields.DPORT, port.first, port.last) for port in case.topology.services[service].ports]
        )
        ends = space.where(fields.SADDR, source) & space.where(fields.DADDR, destination)
        parts.append(space.where(fields.PROTOCOL, fields.TCP) & ends & ports)
    return space.union(parts)
