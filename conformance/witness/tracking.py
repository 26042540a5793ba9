"""What connection tracking makes of a frame that belongs to no connection, with the settings of a firewall.

These are ``nf_conntrack_tcp_loose=0`` and checked checksums; linux/net/netfilter/nf_conntrack_proto_*.c.
"""

from __future__ import annotations

from conformance.witness.frame import network_length
from netpolicy.proof import fields
from netpolicy.proof.evaluate import Packet
from netpolicy.proof.fields import Family, State

FIN, SYN, RST, PSH, ACK, URG = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_IGNORED = 0xC0 | PSH
"""ECE and CWR, and PSH, are nothing to the table of valid combinations."""
_BEGINS = {SYN, SYN | URG}
_QUERIES = {Family.IPV4: {8, 13, 15, 17}, Family.IPV6: {128, 139}}
"""ICMP messages that ask, and so begin something."""
_DISCOVERY = {130, 131, 132, 133, 134, 135, 136, 143}
"""ICMPv6 messages between neighbours, which are not tracked."""
_ERRORS = {Family.IPV4: {3, 4, 5, 11, 12}, Family.IPV6: set(range(1, 128))}
_TCP_HEADER = 20
UNKNOWN = {33, 132, 136}
"""Protocols (DCCP, SCTP, UDP-Lite) that some kernels track by their own rules and some do not."""


def fresh_state(packet: Packet) -> State:
    """Return the state of a packet that belongs to nothing that is known, with right checksums."""
    protocol = packet.number(fields.PROTOCOL)
    own, foreign = (fields.ICMP, fields.ICMPV6) if packet.family is Family.IPV4 else (fields.ICMPV6, fields.ICMP)
    if protocol == fields.TCP and not _whole(packet):
        return State.INVALID
    if protocol == fields.TCP:
        return State.NEW if packet.number(fields.TCP_FLAGS) & ~_IGNORED in _BEGINS else State.INVALID
    if protocol == foreign:
        return State.INVALID
    if protocol == own:
        kind = packet.number(fields.SPORT) >> 8
        if packet.family is Family.IPV6 and kind in _DISCOVERY:
            return State.UNTRACKED
        return State.NEW if kind in _QUERIES[packet.family] else State.INVALID
    return State.NEW


def _whole(packet: Packet) -> bool:
    """Tell whether a packet is as long as its TCP header says, and that is as long as one must be."""
    header = 4 * packet.number(fields.DATA_OFFSET)
    return _TCP_HEADER <= header <= packet.number(fields.LENGTH) - network_length(packet)


def is_error(packet: Packet) -> bool:
    """Tell whether a packet is an ICMP error of its family, which may be related to a connection."""
    own = fields.ICMP if packet.family is Family.IPV4 else fields.ICMPV6
    return packet[fields.PROTOCOL] == own and packet.number(fields.SPORT) >> 8 in _ERRORS[packet.family]
