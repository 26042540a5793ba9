"""Packets in words."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from netpolicy.proof import fields
from netpolicy.proof.evaluate import Packet
from netpolicy.proof.fields import REPLY, STATES, Family, State

_PROTOCOLS = {fields.ICMP: "icmp", fields.TCP: "tcp", fields.UDP: "udp", fields.ICMPV6: "icmpv6"}
_FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr")
_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_ORDINARY_TTL = 64
_LEAST_WORDS = 5


def address(family: Family, number: int) -> str:
    """Return an address as people write it."""
    return str(IPv4Address(number) if family is Family.IPV4 else IPv6Address(number))


def described(packet: Packet) -> str:
    """Return what a packet is, leaving out what is as in most packets."""
    source, destination = (address(packet.family, packet.number(each)) for each in (fields.SADDR, fields.DADDR))
    protocol = packet.number(fields.PROTOCOL)
    name = _PROTOCOLS.get(protocol, f"protocol {protocol}")
    if protocol in {fields.ICMP, fields.ICMPV6}:
        kind = packet.number(fields.SPORT)
        parts = [f"{name} type {kind >> 8} code {kind & 0xFF} {source} → {destination}"]
    else:
        ends = [(source, fields.SPORT), (destination, fields.DPORT)]
        parts = [name + " " + " → ".join(f"{_bracketed(each)}:{packet.number(port)}" for each, port in ends)]
    if protocol == fields.TCP:
        flags = packet.number(fields.TCP_FLAGS)
        parts.append("|".join(each for place, each in enumerate(_FLAGS) if flags >> place & 1) or "no flags")
    parts.extend(f"{word} {packet[each]}" for word, each in (("in", fields.IIF), ("out", fields.OIF)) if packet[each])
    state = STATES[packet.number(fields.STATE)]
    answer = packet.number(fields.DIRECTION) == REPLY and state in {State.ESTABLISHED, State.RELATED}
    parts.append(f"{state.name.lower()}{' answer' if answer else ''}")
    parts.extend(_oddities(packet))
    return ", ".join(parts)


def _oddities(packet: Packet) -> list[str]:
    found = []
    if packet.number(fields.TTL) != _ORDINARY_TTL:
        found.append(f"ttl {packet.number(fields.TTL)}")
    if packet.fragment:
        found.append("a fragment")
    if packet.family is Family.IPV4 and packet.number(fields.HEADER_LENGTH) != 5:
        found.append("IP options")
    if packet.family is Family.IPV6 and packet.number(fields.NEXT_HEADER) in fields.WALKED:
        found.append("extension headers")
    if packet[fields.PROTOCOL] == fields.TCP:
        found.extend(_segment(packet))
    if packet.number(fields.MARK):
        found.append(f"mark {packet.number(fields.MARK):#x}")
    if packet.number(fields.TRANSPARENT):
        found.append("for a transparent socket")
    if packet.number(fields.DAY) or packet.number(fields.HOUR):
        hour, day = packet.number(fields.HOUR), packet.number(fields.DAY)
        found.append(f"{_DAYS[day]} {hour // 3600:02}:{hour // 60 % 60:02}:{hour % 60:02} UTC")
    return found


def _segment(packet: Packet) -> Iterator[str]:
    """Yield what is odd about a TCP header and about what follows it."""
    yield from (str(each) for each in fields.TCP_OPTIONS.values() if packet.number(each))
    words, length = packet.number(fields.DATA_OFFSET), packet.number(fields.LENGTH)
    data = length - fields.bare_length(packet.family, words)
    if words < _LEAST_WORDS:
        yield f"a TCP header of {4 * words} bytes"
    elif data > 0 and packet.number(fields.TCP_FLAGS) & (fields.SYN | fields.RST):
        yield f"{data} bytes of data"


def _bracketed(written: str) -> str:
    return f"[{written}]" if ":" in written else written
