"""What one firewall must do, in terms of its own interfaces: all that the emitters see."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

from netpolicy.topology.ends import SourceLimits
from netpolicy.topology.model import Address, Assurance, ForbiddenProtocol, Limits, PortRange, Prefix, Title, Transport


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A pinned address of the segment; the kernel never asks for it and never learns another."""

    id: str
    address: Address
    mac: str


@dataclass(frozen=True, slots=True)
class Route:
    """A network behind a neighbour."""

    prefix: Prefix
    via: Address


@dataclass(frozen=True, slots=True)
class InterfaceIntent:
    """One interface and all that lies behind it."""

    name: str
    segment: str
    mac: str
    addresses: tuple[Address, ...]
    prefixes: tuple[Prefix, ...]
    """Of the segment itself."""
    behind: tuple[Prefix, ...]
    """Every network reached by this interface, the segment's own included, collapsed and sorted, IPv4 first."""
    neighbours: tuple[Neighbour, ...]
    routes: tuple[Route, ...]
    mtu: int
    """Of the segment, in bytes."""


RELAY_MARK = 0x4E000001
"""In the packet mark: for a socket of the relay, whatever its destination. An accepted mark of the main table."""
RELAY_TABLE = 100
"""The routing table of what has that mark."""


class Direction(enum.StrEnum):
    """Which hook a permit belongs to."""

    FORWARD = "forward"
    INPUT = "input"
    """To the firewall itself."""


@dataclass(frozen=True, slots=True)
class Permit:
    """A rectangle of one family: each source may open connections to each destination."""

    flow: str
    direction: Direction
    in_interface: str
    out_interface: str | None
    """None for INPUT."""
    sources: tuple[Address, ...]
    destinations: tuple[Address, ...]
    transport: Transport
    ports: tuple[PortRange, ...]

    @property
    def family(self) -> int:
        """4 or 6."""
        return self.sources[0].version


@dataclass(frozen=True, slots=True)
class FlowIntent:
    """What the emitters need of a flow."""

    id: str
    title: Title
    basis: str
    owner: str
    assurance: Assurance
    service: str
    transport: Transport
    ports: tuple[PortRange, ...]
    alpn: str
    """The protocol (RFC 7301) that both ends must agree on."""
    prologue: str | None
    """With what each side begins inside TLS (ASCII), as far as that is known."""
    affair: str
    limits: Limits
    per_source: SourceLimits
    expires: datetime | None
    """The first instant after its last day, with the network's time zone."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A node or firewall as others know it: by addresses, and by its certificates."""

    id: str
    uri: str
    name: str
    """The DNS name that is asked for and verified."""
    addresses: tuple[Address, ...]
    fingerprints: tuple[str, ...]
    """SHA-1 of each certificate that is pinned for it, lower case hexadecimal; empty where none is known."""


@dataclass(frozen=True, slots=True)
class TlsPeer:
    """Who must be at the other end of TLS for packets from or to an address: the end itself, or the next relay."""

    address: Address
    uri: str
    name: str


@dataclass(frozen=True, slots=True)
class RelayedFlow:
    """A flow with assurance `terminate` as the relay of one firewall sees it."""

    flow: str
    port: int
    """Where the relay listens on the loopback device; no service has it."""
    clients: tuple[TlsPeer, ...]
    """By source address, sorted: the client, or the relay before this one."""
    servers: tuple[TlsPeer, ...]
    """By destination address, sorted: the server, or the relay after this one."""
    local: tuple[Address, ...]
    """Those of the destinations that are this firewall itself, whose endpoint is on the loopback device."""
    senders: tuple[str, ...] = ()
    """Who may ask that endpoint: the URIs of the sources themselves, whatever relays are on their way; sorted."""


@dataclass(frozen=True, slots=True)
class FirewallIntent:
    """One firewall."""

    network: str
    id: str
    title: Title
    uri: str
    """Who it is in its own certificate."""
    name: str
    """The DNS name in its own certificate."""
    managed_by: str
    timezone: str
    """IANA name, for `FlowIntent.limits.windows`."""
    interfaces: tuple[InterfaceIntent, ...]
    crossings: tuple[tuple[str, str], ...]
    """Ordered pairs of interfaces that some path of the topology takes through this firewall."""
    permits: tuple[Permit, ...]
    flows: tuple[FlowIntent, ...]
    """Those that occur in `permits`, in the topology's order."""
    forbidden: tuple[ForbiddenProtocol, ...]
    disconnected: tuple[tuple[str, tuple[Prefix, ...]], ...]
    """For each site that is not connected: its id and its prefixes."""
    engines: tuple[str, ...]
    """The interfaces at which an inline engine stands."""
    relayed: tuple[RelayedFlow, ...]
    """Those of `flows` whose TLS ends here and begins anew."""
    peers: tuple[Peer, ...]
    """Every end that occurs in `permits`, in the topology's order, nodes first."""

    @property
    def families(self) -> tuple[int, ...]:
        """The address families that some interface has: 4, 6 or both. Of another one nothing passes, comes or goes."""
        found = {address.version for interface in self.interfaces for address in interface.addresses}
        return tuple(sorted(found))
