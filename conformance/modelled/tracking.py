"""What connection tracking makes of a packet, and the connection that must be there beforehand for it.

The tables are those of net/netfilter/nf_conntrack_proto_tcp.c, _icmp.c and _icmpv6.c, with ``tcp_loose`` off.
"""

from __future__ import annotations

from dataclasses import dataclass

from conformance.modelled.frames import SCTP, UDPLITE, Inner
from netpolicy.proof import fields
from netpolicy.proof.evaluate import Packet
from netpolicy.proof.fields import ACK, FIN, ICMP, ICMPV6, ORIGINAL, REPLY, RST, SYN, TCP, UDP, Family, State

_PLAIN = 0x3F & ~0x08
"""Flags that matter: not PSH, ECE, CWR."""
_URG = 0x20
_VALID = {SYN, SYN | _URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | _URG, ACK, ACK | _URG}
_REQUESTS = {ICMP: {8: 0, 13: 14, 15: 16, 17: 18}, ICMPV6: {128: 129, 139: 140}}
"""Types that begin something, and their answers."""
_ERRORS = {ICMP: {3, 4, 5, 11, 12}, ICMPV6: set(range(128))}
_UNTRACKED = {130, 131, 132, 133, 134, 135, 136, 143}
_PORTS = {TCP, UDP, SCTP, UDPLITE}
_NEW = fields.STATES.index(State.NEW)
_FAMILY = {ICMP: Family.IPV4, ICMPV6: Family.IPV6}


@dataclass(frozen=True, slots=True)
class Connection:
    """An entry of connection tracking that has seen an answer."""

    family: Family
    protocol: int
    source: int
    destination: int
    source_port: int = 0
    port: int = 0
    """Of ICMP: type and code."""
    identity: int = 0
    """Of ICMP."""
    mark: int = 0


@dataclass(frozen=True, slots=True)
class Tracked:
    """How a packet gets its state."""

    state: State
    direction: int = ORIGINAL
    connection: Connection | None = None
    broken: bool = False
    inner: Inner | None = None


def tracked(packet: Packet, number: int) -> Tracked:
    """Return the state that is closest to the one that a packet has in mind, and how it comes about."""
    protocol = packet.number(fields.PROTOCOL)
    wanted = fields.STATES[packet.number(fields.STATE)]
    if packet.later_fragment or _FAMILY.get(protocol, packet.family) is not packet.family:
        return Tracked(State.INVALID)
    if protocol in _FAMILY:
        return _icmp(packet, protocol, wanted, number)
    if wanted is State.INVALID and protocol in {TCP, UDP, UDPLITE}:
        return Tracked(State.INVALID, broken=True)
    if wanted in {State.ESTABLISHED, State.RELATED} and protocol != SCTP:
        return _established(packet, protocol)
    if protocol == TCP and packet.number(fields.TCP_FLAGS) & _PLAIN not in {SYN, SYN | _URG}:
        return Tracked(State.INVALID)
    return Tracked(State.NEW)


def _established(packet: Packet, protocol: int) -> Tracked:
    direction = packet.number(fields.DIRECTION)
    ports = [packet.number(fields.SPORT), packet.number(fields.DPORT)] if protocol in _PORTS else [0, 0]
    addresses = [packet.number(fields.SADDR), packet.number(fields.DADDR)]
    if addresses[0] == addresses[1] and ports[0] == ports[1]:
        return tracked(packet.changed({fields.STATE: _NEW}), 0)  # an answer would look the same
    if direction == REPLY:
        ports.reverse()
        addresses.reverse()
    mark = packet.number(fields.CT_MARK)
    connection = Connection(packet.family, protocol, addresses[0], addresses[1], ports[0], ports[1], mark=mark)
    if protocol == TCP:
        flags = packet.number(fields.TCP_FLAGS) & _PLAIN
        against = {SYN | ACK} if direction == ORIGINAL else {SYN, SYN | _URG}
        if flags not in _VALID or flags in against:
            return Tracked(State.INVALID, connection=connection)
    return Tracked(State.ESTABLISHED, direction, connection)


def _icmp(packet: Packet, protocol: int, wanted: State, number: int) -> Tracked:
    kind, code = divmod(packet.number(fields.SPORT), 256)
    requests = _REQUESTS[protocol]
    answers = {answer: request for request, answer in requests.items()}
    ends = packet.number(fields.SADDR), packet.number(fields.DADDR)
    mark = packet.number(fields.CT_MARK)
    if protocol == ICMPV6 and kind in _UNTRACKED:
        return Tracked(State.UNTRACKED)
    if kind in _ERRORS[protocol]:
        return _related(packet, number) if wanted is State.RELATED else Tracked(State.INVALID)
    if kind in requests and wanted is not State.ESTABLISHED:
        return Tracked(State.NEW)
    if kind in requests:
        connection = Connection(packet.family, protocol, ends[0], ends[1], kind, code, number & 0xFFFF, mark)
        return Tracked(State.ESTABLISHED, ORIGINAL, connection)
    if kind in answers and wanted is State.ESTABLISHED:
        request = answers[kind]
        connection = Connection(packet.family, protocol, ends[1], ends[0], request, code, number & 0xFFFF, mark)
        return Tracked(State.ESTABLISHED, REPLY, connection)
    return Tracked(State.INVALID)


def _related(packet: Packet, number: int) -> Tracked:
    """Return an error about a datagram of a connection: it goes to whoever sent that datagram."""
    sender, receiver = packet.number(fields.DADDR), packet.number(fields.SADDR) ^ 0x0100
    ports = 20000 + number % 20000, 40000 + number // 20000 % 20000
    inner = Inner(sender, receiver, ports[0], ports[1])
    direction = packet.number(fields.DIRECTION)
    mark = packet.number(fields.CT_MARK)
    connection = Connection(packet.family, UDP, sender, receiver, ports[0], ports[1], mark=mark)
    if direction == ORIGINAL:
        connection = Connection(packet.family, UDP, receiver, sender, ports[1], ports[0], mark=mark)
    return Tracked(State.RELATED, direction, connection, inner=inner)
