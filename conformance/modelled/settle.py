"""The packet closest to a wished one that can be sent: what the kernel decides itself is as it decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from conformance.modelled.frames import Form, extensions, next_header, shortest
from conformance.modelled.plan import HERE, LISTENED, Plan
from conformance.modelled.tracking import Connection, tracked
from netpolicy.proof import fields
from netpolicy.proof.evaluate import Packet
from netpolicy.proof.fields import STATES, TCP, UDP, Family, Field
from netpolicy.proof.model import Hook

THROUGH = (Hook.PREROUTING, Hook.FORWARD, Hook.POSTROUTING)
INWARD = (Hook.PREROUTING, Hook.INPUT)
OUTWARD = (Hook.OUTPUT, Hook.POSTROUTING)
NOWHERE = (Hook.PREROUTING,)
"""Routing has no use for it."""

ARBITRARY = {Family.IPV4: 0xC0000208, Family.IPV6: 0x20010DB8 << 96 | 8}
"""The destination of packets about whose destination nothing is asked (:func:`netpolicy.proof.witness.candidates`)."""
_MTU = 1496
_GRE, _NONE = 47, 59
_WORDS = 5
"""Of four bytes, of a TCP header without options."""


@dataclass(frozen=True, slots=True)
class Sendable:
    """A packet that can be sent, and what goes with it."""

    packet: Packet
    hooks: Sequence[Hook]
    form: Form
    connection: Connection | None
    """That must be there."""


def settle(plan: Plan, wished: Packet, number: int) -> Sendable | None:
    """Return the closest packet that can be sent; None where there is none near.

    Args:
        plan: What surrounds the kernel.
        wished: Any packet.
        number: Its own.

    """
    packet = _headers(_led(plan, wished))
    if packet is None or not _plausible(packet):
        return None
    hooks = _way(plan, packet)
    if hooks is None:
        return None
    packet = packet.changed(_surroundings(plan, packet, hooks))
    found = tracked(packet, number)
    packet = packet.changed(_segment(packet, broken=found.broken))
    form = Form(number, found.broken, found.inner)
    state: dict[Field, int | str] = {
        fields.STATE: STATES.index(found.state),
        fields.DIRECTION: found.direction,
        fields.CT_MARK: found.connection.mark if found.connection is not None else 0,
        fields.LENGTH: _length(packet, form),
    }
    return Sendable(packet.changed(state), hooks, form, found.connection)


def _led(plan: Plan, wished: Packet) -> Packet:
    """Return a packet whose destination, if it is an arbitrary one, leads where it wishes to go."""
    to = wished[fields.OIF]
    if wished[fields.DADDR] != ARBITRARY[wished.family] or to not in {HERE, *plan.interfaces}:
        return wished
    return wished.changed({fields.DADDR: plan.destination(wished.family, str(to))})


def _segment(packet: Packet, *, broken: bool) -> dict[Field, int | str]:
    """Return how long a TCP header is and which options are in it; of what is no such header, what is read as one."""
    options = {each: packet.number(each) for each in fields.TCP_OPTIONS.values()}
    if packet[fields.PROTOCOL] != TCP or packet.later_fragment or broken:
        options = dict.fromkeys(options, 0)
    words = 0
    if packet[fields.PROTOCOL] == TCP and packet.later_fragment and packet.family is Family.IPV6:
        words = packet.number(fields.SADDR) >> 92 & 0xF  # of the fixed header, see _misread()
    elif packet[fields.PROTOCOL] == TCP and not broken:
        words = max(_WORDS + sum(options.values()), packet.number(fields.DATA_OFFSET))
    return {fields.DATA_OFFSET: words, **options}


def _length(packet: Packet, form: Form) -> int:
    length = max(shortest(packet, form), min(packet.number(fields.LENGTH), _MTU))
    if packet.family is Family.IPV6 and packet[fields.MORE_FRAGMENTS]:
        length += -length % 8
        return length + 4 if packet[fields.ODD_FRAGMENT] else length
    return length


def _headers(wished: Packet) -> Packet | None:
    """Return it with headers that agree with each other."""
    protocol = wished.number(fields.PROTOCOL)
    changes: dict[Field, int | str] = {}
    if protocol != TCP:
        changes[fields.TCP_FLAGS] = 0
    if wished.family is Family.IPV4:
        changes[fields.HEADER_LENGTH] = max(5, wished.number(fields.HEADER_LENGTH))
        return None if protocol == _GRE else wished.changed(changes)
    if protocol in {*fields.WALKED, _GRE, _NONE}:
        return None
    if not wished[fields.EXTENSIONS["frag"]]:
        changes[fields.LATER_FRAGMENT] = changes[fields.MORE_FRAGMENTS] = 0
    if not wished[fields.EXTENSIONS["frag"]] or not wished[fields.MORE_FRAGMENTS]:
        changes[fields.ODD_FRAGMENT] = 0
    packet = wished.changed(changes)
    if packet[fields.LATER_FRAGMENT] and "dst" in extensions(packet):
        # Destination options stand behind the Fragment header at times, but before it here.
        packet = packet.changed({fields.EXTENSIONS["dst"]: 0})
    packet = packet.changed({fields.NEXT_HEADER: next_header(packet)})
    return _misread(packet) if packet.later_fragment else packet


def _misread(packet: Packet) -> Packet:
    """Return a later fragment of IPv6 with what the kernel takes for its transport header: the fixed header."""
    traffic_class = packet.number(fields.DSCP) << 2 | packet.number(fields.ECN)
    flags = packet.number(fields.SADDR) >> 80 & 0xFF if packet[fields.PROTOCOL] == TCP else 0
    low = packet.number(fields.SPORT) & 0xF
    return packet.changed({fields.SPORT: 6 << 12 | traffic_class << 4 | low, fields.TCP_FLAGS: flags})


def _plausible(packet: Packet) -> bool:
    """Tell whether no check before the hooks, nor one of routing, is about its addresses."""
    ends = packet.number(fields.SADDR), packet.number(fields.DADDR)
    if packet.family is Family.IPV4:
        return all(0 < each >> 24 < 224 and each >> 24 != 127 for each in ends)
    return all(each >> 125 == 1 or each >> 121 == 0x7E for each in ends)


def _way(plan: Plan, packet: Packet) -> Sequence[Hook] | None:
    towards = plan.towards(packet.family, packet.number(fields.DADDR))
    if towards is None:
        return None
    if packet[fields.IIF] not in plan.interfaces:
        return None if towards == HERE else OUTWARD
    if towards == HERE:
        return INWARD
    if packet.number(fields.TTL) <= 1 or packet[fields.PACKET_TYPE] in {1, 2}:
        return NOWHERE
    return THROUGH


def _surroundings(plan: Plan, packet: Packet, hooks: Sequence[Hook]) -> dict[Field, int | str]:
    """Return what the kernel knows of it besides its headers."""
    now = datetime.now(UTC)
    towards = plan.towards(packet.family, packet.number(fields.DADDR))
    kind = packet.number(fields.PACKET_TYPE)
    changes: dict[Field, int | str] = {
        fields.DAY: now.isoweekday() % 7,
        fields.HOUR: now.hour * 3600 + now.minute * 60 + now.second,
        fields.TIME: int(now.timestamp()),
        fields.ZONE: 0,
        fields.OIF: towards or "",
        fields.PACKET_TYPE: kind if kind in {1, 2} and hooks != OUTWARD else 0,
        fields.TRANSPARENT: int(hooks != OUTWARD and _listened(packet)),
    }
    if hooks == OUTWARD:
        changes[fields.IIF] = ""
    else:
        changes[fields.MARK] = 0
    return changes


def _listened(packet: Packet) -> bool:
    return packet[fields.PROTOCOL] in {TCP, UDP} and packet[fields.DPORT] in LISTENED
