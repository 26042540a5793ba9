"""What a person asks about, as a packet: by names of nodes and services, or by numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from ipaddress import ip_address

from netpolicy.intent.routing import Routing
from netpolicy.proof import fields
from netpolicy.proof.evaluate import Packet
from netpolicy.proof.fields import ACK, FIN, ORIGINAL, REPLY, RST, STATES, SYN, Family, Field, State
from netpolicy.topology.model import Address, Firewall, Node, Topology

_CLIENT_PORT = 40000
_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}
_SERVICE = re.compile(r"(?P<protocol>[a-z0-9]+)(?:/(?P<port>\d+))?")
_FLAGS = {"fin": FIN, "syn": SYN, "rst": RST, "psh": 0x08, "ack": ACK, "urg": 0x20}
STATE_NAMES = (*(state.name.lower() for state in State), "reply")
"""``reply`` is an established connection, seen from its server."""


class QuestionError(ValueError):
    """The question names what is not there; says what is nearest."""


@dataclass(frozen=True, slots=True)
class Question:
    """One packet, and where it begins."""

    packet: Packet
    """Without interfaces: each firewall gives its own."""
    source: Address
    destination: Address
    at: datetime
    enters: tuple[str, str] | None = None
    """Firewall and interface where it comes in; None for where its source lives."""

    @property
    def reply(self) -> bool:
        """Whether it answers a connection."""
        return self.packet.number(fields.DIRECTION) == REPLY

    @property
    def state(self) -> State:
        """Return what connection tracking makes of it."""
        return STATES[self.packet.number(fields.STATE)]

    def answer(self) -> Question:
        """Return what the server says to it."""
        return self._turned(State.ESTABLISHED, REPLY, SYN | ACK)

    def asked(self) -> Question:
        """Return what began the connection that it answers."""
        return self._turned(State.NEW, ORIGINAL, SYN)

    def _turned(self, state: State, direction: int, flags: int) -> Question:
        values = dict(self.packet.values)
        for one, other in ((fields.SADDR, fields.DADDR), (fields.SPORT, fields.DPORT)):
            values[one], values[other] = self.packet[other], self.packet[one]
        values[fields.STATE], values[fields.DIRECTION] = STATES.index(state), direction
        if values[fields.PROTOCOL] == fields.TCP:
            values[fields.TCP_FLAGS] = flags
        return Question(Packet(self.packet.family, values), self.destination, self.source, self.at)


@dataclass(frozen=True, slots=True)
class Asked:
    """The words of a question."""

    source: str
    destination: str
    service: str
    state: str
    at: datetime
    version: int | None = None
    """Of IP; None for the first that both ends have."""
    flags: str | None = None
    enters: str | None = None
    """``firewall:interface``."""
    source_port: int | None = None


def question(topology: Topology, routing: Routing, asked: Asked) -> Question:
    """Return the packet that is meant.

    Raises:
        QuestionError: A name means nothing, or the ends have no family in common.

    """
    source, destination = _pair(topology, routing, asked)
    protocol, port = _service(topology, asked.service)
    family = Family.IPV4 if source.version == 4 else Family.IPV6
    state, direction = _state(asked.state)
    client = _CLIENT_PORT if asked.source_port is None else asked.source_port
    ports = (client, port)
    if protocol in {fields.ICMP, fields.ICMPV6}:
        ports = (port << 8, 0)
    elif direction == REPLY:
        ports = (port, client)
    flags = 0
    if protocol == fields.TCP:
        flags = _flags(asked.flags) if asked.flags is not None else SYN if state is State.NEW else ACK
    values: dict[Field, int | str] = {
        fields.SADDR: int(source),
        fields.DADDR: int(destination),
        fields.SPORT: ports[0],
        fields.DPORT: ports[1],
        fields.PROTOCOL: protocol,
        fields.TCP_FLAGS: flags,
        fields.STATE: STATES.index(state),
        fields.DIRECTION: direction,
    }
    return Question(
        Packet(family, {**values, **plain(family, protocol), **clock(asked.at)}),
        source,
        destination,
        asked.at,
        _enters(topology, asked.enters),
    )


def plain(family: Family, protocol: int) -> dict[Field, int]:
    """Return what an ordinary header has."""
    own = {fields.HEADER_LENGTH: 5} if family is Family.IPV4 else {fields.NEXT_HEADER: protocol}
    segment = {fields.DATA_OFFSET: fields.BARE_OFFSET} if protocol == fields.TCP else {}
    return {fields.TTL: 64, fields.LENGTH: fields.bare_length(family), **segment, **own}


def clock(at: datetime) -> dict[Field, int]:
    """Return what the kernel's clock says."""
    utc = at.astimezone(UTC)
    return {
        fields.DAY: (utc.weekday() + 1) % 7,
        fields.HOUR: (utc.hour * 60 + utc.minute) * 60 + utc.second,
        fields.TIME: int(utc.timestamp()),
    }


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return the end of a sentence: which valid name was perhaps meant."""
    names = list(valid)
    near = get_close_matches(name, names, 1)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; one of {', '.join(names)}" if len(names) <= 8 else ""


def _pair(topology: Topology, routing: Routing, asked: Asked) -> tuple[Address, Address]:
    source, destination = _end(topology, asked.source), _end(topology, asked.destination)
    ours = _addresses(routing, source, destination)
    theirs = _addresses(routing, destination, source)
    for version in (4, 6) if asked.version is None else (asked.version,):
        pair = [next((each for each in side if each.version == version), None) for side in (ours, theirs)]
        if pair[0] is not None and pair[1] is not None:
            return pair[0], pair[1]
    wanted = "a family" if asked.version is None else f"IPv{asked.version}"
    raise QuestionError(f"{asked.source} and {asked.destination} do not have {wanted} in common")


def _end(topology: Topology, name: str) -> Node | Firewall | Address:
    end = topology.nodes.get(name) or topology.firewalls.get(name)
    if end is not None:
        return end
    try:
        return ip_address(name)
    except ValueError:
        hint = nearest(name, (*topology.nodes, *topology.firewalls))
        raise QuestionError(f"'{name}' is neither a node, nor a firewall, nor an address{hint}") from None


def _addresses(
    routing: Routing, end: Node | Firewall | Address, other: Node | Firewall | Address
) -> tuple[Address, ...]:
    """Return the addresses of an end, of a firewall those that face the other end."""
    if isinstance(end, Node):
        return end.interface.addresses
    if not isinstance(end, Firewall):
        return (end,)
    facing = routing.end_of(other, end) if isinstance(other, Node) else None
    return (facing or end.interfaces[0]).addresses


def _service(topology: Topology, name: str) -> tuple[int, int]:
    """Return the protocol and the server's port; of a service the first."""
    known = topology.services.get(name)
    if known is not None:
        return fields.TCP, known.ports[0].first
    given = _SERVICE.fullmatch(name)
    protocol = None if given is None else _PROTOCOLS.get(given["protocol"])
    if given is not None and protocol is None and given["protocol"].isdecimal():
        protocol = int(given["protocol"])
    if given is None or protocol is None or protocol > 0xFF:
        hint = nearest(name, topology.services)
        raise QuestionError(f"'{name}' is neither a service nor of the form tcp/80{hint}")
    port = int(given["port"] or 0)
    if port > 0xFFFF:
        raise QuestionError(f"there is no port {port}")
    return protocol, port


def _state(name: str) -> tuple[State, int]:
    if name == "reply":
        return State.ESTABLISHED, REPLY
    return State[name.upper()], ORIGINAL


def _flags(given: str) -> int:
    names = [name for name in given.lower().split(",") if name and name != "none"]
    for name in names:
        if name not in _FLAGS:
            raise QuestionError(f"there is no TCP flag '{name}'{nearest(name, _FLAGS)}")
    return sum(_FLAGS[name] for name in set(names))


def _enters(topology: Topology, given: str | None) -> tuple[str, str] | None:
    if given is None:
        return None
    name, _, interface = given.partition(":")
    firewall = topology.firewalls.get(name)
    if firewall is None:
        raise QuestionError(f"there is no firewall '{name}'{nearest(name, topology.firewalls)}")
    valid = [each.name for each in firewall.interfaces]
    if interface not in valid:
        raise QuestionError(f"firewall '{name}' has no interface '{interface}'{nearest(interface, valid)}")
    return name, interface
