"""The topology as the rest of the toolkit sees it: frozen, resolved, and valid.

Objects of this module are only made by :mod:`netpolicy.topology.load`, after every check of the language has
passed.  They hold no YAML, no templates and no dangling names.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, time
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where in the input something stands."""

    file: str
    line: int
    """1-based."""
    column: int
    """1-based."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Title:
    """What people call a thing."""

    en: str
    ja: str | None = None

    def __str__(self) -> str:
        return f"{self.ja} ({self.en})" if self.ja else self.en


@dataclass(frozen=True, slots=True)
class Tier:
    """A level of government, or another level of trust; nothing crosses its boundary but through a firewall."""

    id: str
    title: Title


class SegmentKind(enum.StrEnum):
    """What a segment is made of."""

    LAN = "lan"
    DEDICATED_LINE = "dedicated_line"
    """専用回線: belongs to no tier; only firewalls stand on it."""
    EXTERNAL = "external"
    """A network outside the operators' control, such as the Internet."""


DEFAULT_MTU = 1500
"""Of Ethernet (RFC 894): bytes of an IP packet, its header included."""
LEAST_MTU = {4: 576, 6: 1280}
"""By version of IP: what every host must be able to receive (RFC 791), and what every link must carry (RFC 8200)."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One layer-2 network."""

    id: str
    title: Title
    kind: SegmentKind
    tier: str | None
    """None for a dedicated line and for an external segment."""
    site: str | None
    prefixes: tuple[Prefix, ...]
    """At most one of each family, no host bits set."""
    place: Place
    mtu: int = DEFAULT_MTU
    """Bytes of the largest IP packet that its line carries."""


@dataclass(frozen=True, slots=True)
class Site:
    """An organisation's place on the network: a municipality, a prefecture, the centre, an agency."""

    id: str
    title: Title
    tier: str
    parent: str | None
    """The site above it: a municipality's prefecture."""
    code: str | None
    """全国地方公共団体コード, six digits with its check digit, for local governments."""
    connected: bool
    """False (不接続団体): no flow between this site and another one is permitted, at either end."""
    disconnected_until: date | None
    """The date the disconnection is decided for; it is information: a date never opens a firewall by itself."""
    place: Place


@dataclass(frozen=True, slots=True)
class Role:
    """What a node is, for flows to name."""

    id: str
    title: Title
    tier: str | None
    """The tier whose segments nodes of this role stand on; None for nodes of an external segment."""


@dataclass(frozen=True, slots=True)
class Interface:
    """An attachment to a segment."""

    name: str
    """The kernel's name for it, at most 15 bytes."""
    segment: str
    addresses: tuple[Address, ...]
    """At most one of each family, inside the segment's prefix of that family."""
    mac: str
    """``02:…`` derived from owner and name unless the topology gives it."""


@dataclass(frozen=True, slots=True)
class Node:
    """A host: an end of flows."""

    id: str
    title: Title
    role: str
    site: str | None
    interface: Interface
    """A node stands on one segment: what joins segments is a firewall."""
    identity: str | None
    """The role URI in its certificate's subjectAltName."""
    place: Place


@dataclass(frozen=True, slots=True)
class Manager:
    """Who administers firewalls, and from where."""

    id: str
    title: Title
    segment: str
    """The only segment management connections may come from."""


@dataclass(frozen=True, slots=True)
class Firewall:
    """A packet filter between segments."""

    id: str
    title: Title
    site: str | None
    managed_by: str
    """A :class:`Manager` id."""
    interfaces: tuple[Interface, ...]
    """Two or more, each on a segment of its own."""
    cost: int
    """Added to every path through it; the cheapest path is taken."""
    identity: str | None
    signatures: int
    """How many different operators of its manager must sign what it runs."""
    place: Place


class Transport(enum.StrEnum):
    """Transport protocols of services. Both assurances are TLS over TCP (RFC 8446), so there is one."""

    TCP = "tcp"


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """Ports from `first` to `last`, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and self.first <= port <= self.last


@dataclass(frozen=True, slots=True)
class Service:
    """A declared application protocol."""

    id: str
    title: Title
    transport: Transport
    ports: tuple[PortRange, ...]
    """Sorted, disjoint, not adjacent."""
    alpn: str
    """The ALPN protocol (RFC 7301) both ends must agree on."""
    prologue: str | None
    """With what each side begins inside TLS (ASCII), as far as that is known."""
    place: Place


@dataclass(frozen=True, slots=True)
class ForbiddenProtocol:
    """A protocol that must never pass, and the ports it is known by (it is blocked on all others as well)."""

    id: str
    title: Title
    tcp: tuple[PortRange, ...]
    udp: tuple[PortRange, ...]


class Assurance(enum.StrEnum):
    """How mutual TLS is enforced on the firewall."""

    INSPECT = "inspect"
    """TLS 1.2 end to end, both certificates seen by the inline engine."""
    TERMINATE = "terminate"
    """TLS 1.3, ended and begun anew on the firewall's relay."""


@dataclass(frozen=True, slots=True)
class Basis:
    """The law a flow rests on."""

    act: str
    article: str
    as_of: date
    """The text in force on this day is meant."""
    confirmed: bool
    """False: the citation still has to be checked by the owner."""

    def __str__(self) -> str:
        return f"{self.act} {self.article} ({self.as_of})" + ("" if self.confirmed else ", to be confirmed")


class Weekday(enum.IntEnum):
    """Numbered as :meth:`datetime.date.weekday` does."""

    MON = 0
    TUE = 1
    WED = 2
    THU = 3
    FRI = 4
    SAT = 5
    SUN = 6


@dataclass(frozen=True, slots=True)
class Window:
    """A weekly recurring time in which a flow exists, in the network's time zone.

    `start` is included, `end` is not. ``end <= start`` means that the window ends on the following day.
    """

    days: tuple[Weekday, ...]
    """The days on which it starts."""
    start: time
    end: time


DEFAULT_RATE = 100
"""New connections per second, of a flow whose author has not said how many."""
DEFAULT_CONNECTIONS = 1000
"""The same of concurrent connections."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a flow is held to on each firewall it crosses; windows of () mean always.

    No flow is without a number: each connection takes a place in a firewall's table, which all flows share.
    """

    rate: int = DEFAULT_RATE
    """New connections per second, over the whole flow."""
    connections: int = DEFAULT_CONNECTIONS
    """Concurrent connections, over the whole flow."""
    rate_per_source: int | None = None
    """Of `rate`, what one source address may have; None: see :func:`netpolicy.topology.ends.source_limits`."""
    connections_per_source: int | None = None
    """Of `connections`, the same."""
    windows: tuple[Window, ...] = ()
    """Service hours or batch windows; outside all of them nothing of the flow passes."""


class SiteRelation(enum.StrEnum):
    """How the site of a flow's `to` stands to the site of its `from`."""

    PARENT = "parent"
    CHILD = "child"
    SAME = "same"
    OTHER = "other"
    """Any site but its own."""


@dataclass(frozen=True, slots=True)
class Selector:
    """Which nodes (or firewalls) an end of a flow means: those that fit all that is given."""

    nodes: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    tiers: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    relation: SiteRelation | None = None
    """Only in a flow's `to`."""
    managed_by: str | None = None
    """Given: the end is the firewalls of this manager (their own management endpoint), not nodes."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A permitted kind of connection, and why it is permitted."""

    id: str
    title: Title
    sources: Selector
    destinations: Selector
    service: str
    assurance: Assurance
    basis: Basis
    affair: str
    """利用可能事務."""
    owner: str
    review: date
    limits: Limits
    effective_from: date | None
    """Before it the flow is not compiled."""
    effective_until: date | None
    """The last day on which it passes; the kernel closes it at the end of that day by itself."""
    place: Place


@dataclass(frozen=True, slots=True)
class Invariant:
    """What must never be permitted, whatever the flows say."""

    id: str
    title: Title
    sources: Selector
    destinations: Selector
    place: Place


@dataclass(frozen=True)
class Topology:
    """A whole network. Mappings are keyed by id and keep the order of the file."""

    id: str
    title: Title
    as_of: date
    """The day the policy is judged on (effective dates, reviews): given, so that equal input gives equal bytes."""
    timezone: str
    """IANA name; service hours are in it."""
    tiers: Mapping[str, Tier]
    segments: Mapping[str, Segment]
    sites: Mapping[str, Site]
    roles: Mapping[str, Role]
    nodes: Mapping[str, Node]
    managers: Mapping[str, Manager]
    firewalls: Mapping[str, Firewall]
    services: Mapping[str, Service]
    forbidden: Mapping[str, ForbiddenProtocol]
    flows: Mapping[str, Flow]
    """Every flow of the file, those not in effect on `as_of` too."""
    invariants: Mapping[str, Invariant]
    digest: str
    """SHA-256 over every input file (topology, tables), hexadecimal."""
    certificates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By node or firewall, the SHA-1 of each certificate that is pinned for it, lower case hexadecimal, sorted."""

    def effective_flows(self) -> tuple[Flow, ...]:
        """Return the flows in effect on `as_of`, in file order."""
        return tuple(
            flow
            for flow in self.flows.values()
            if (flow.effective_from is None or flow.effective_from <= self.as_of)
            and (flow.effective_until is None or self.as_of <= flow.effective_until)
        )
