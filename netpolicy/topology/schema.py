"""The language: what may stand in a topology file.

The docstrings and descriptions of this module are the language reference (``docs/language.md``) and the JSON Schema.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from netpolicy.topology.fields import (
    LISTED,
    Alpn,
    Code,
    Cost,
    Count,
    Day,
    HostAddress,
    Hours,
    Identifier,
    LinkMtu,
    MacAddress,
    Name,
    NetworkPrefix,
    Ports,
    Prologue,
    Rate,
    Reference,
    RoleUri,
    Signatures,
    Text,
    Today,
    Truth,
    choice,
)
from netpolicy.topology.model import (
    DEFAULT_CONNECTIONS,
    DEFAULT_MTU,
    DEFAULT_RATE,
    LEAST_MTU,
    Assurance,
    SegmentKind,
    SiteRelation,
    Transport,
)

INTERFACE = "eth0"
"""Of a node, unless it says otherwise."""
COST = 10
"""Of a firewall, unless it says otherwise."""

SITE_RELATIONS = tuple(str(relation.value) for relation in SiteRelation)


class Spec(BaseModel):
    """Every construct refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False, arbitrary_types_allowed=True)


def _titled(value: object) -> object:
    return {"en": value} if isinstance(value, str) else value


class TitleSpec(Spec):
    """What people call a thing: a text, or one in English and one in Japanese."""

    en: Text = Field(description="in English")
    ja: Text | None = Field(None, description="in Japanese")


Titled = Annotated[TitleSpec, BeforeValidator(_titled)]


class NetworkSpec(Spec):
    """The network as a whole."""

    id: Identifier = Field(description="its name")
    title: Titled = Field(description="what people call it")
    as_of: Today = Field(description="the day the policy is judged on: effective dates and reviews")
    timezone: Text = Field(description="IANA name of the time zone of service hours, such as `Asia/Tokyo`")


class TierSpec(Spec):
    """A level of government, or another level of trust. Only a firewall may join segments of two tiers."""

    title: Titled = Field(description="what people call it")


class SiteSpec(Spec):
    """An organisation's place on the network: a municipality, a prefecture, a centre, an agency."""

    title: Titled = Field(description="what people call it")
    tier: Annotated[Name, Reference("tiers")] = Field(description="its tier")
    parent: Annotated[Name, Reference("sites")] | None = Field(None, description="the site above it")
    code: Code | None = Field(None, description="code of the local government (全国地方公共団体コード), in quotes")
    connected: Truth = Field(True, description="`false` (不接続団体): no flow crosses its border, whatever flows say")
    disconnected_until: Day | None = Field(
        None, description="the day until which that is decided. Information: a date never opens a firewall by itself"
    )


class SegmentSpec(Spec):
    """One layer-2 network."""

    title: Titled = Field(description="what people call it")
    kind: Annotated[SegmentKind, choice(SegmentKind)] = Field(
        SegmentKind.LAN,
        description="`lan`; `dedicated_line` (専用回線: belongs to no tier, only firewalls stand on it); `external` "
        "(outside the operators' control, such as the Internet)",
    )
    tier: Annotated[Name, Reference("tiers")] | None = Field(None, description="its tier: of a `lan`, and only of it")
    site: Annotated[Name, Reference("sites")] | None = Field(None, description="the site it is at")
    prefixes: Annotated[tuple[NetworkPrefix, ...], LISTED] = Field(description="at most one of each family")
    mtu: LinkMtu = Field(
        DEFAULT_MTU,
        description=f"the largest IP packet that the line carries, in bytes; at least {LEAST_MTU[4]}, with IPv6 "
        f"{LEAST_MTU[6]}. Firewalls hold every handshake to the lines on either side, since they pass on no ICMP error "
        "that would tell",
    )


class RoleSpec(Spec):
    """What a node is, for flows to name."""

    title: Titled = Field(description="what people call it")
    tier: Annotated[Name, Reference("tiers")] | None = Field(
        None, description="the tier on whose segments such nodes stand; without it, they stand on external segments"
    )


class NodeSpec(Spec):
    """A host: an end of flows. It stands on one segment, and is at that segment's site."""

    title: Titled = Field(description="what people call it")
    role: Annotated[Name, Reference("roles")] = Field(description="what it is")
    segment: Annotated[Name, Reference("segments")] = Field(description="where it stands")
    addresses: Annotated[tuple[HostAddress, ...], LISTED] = Field(description="at most one of each family")
    interface: Text = Field(INTERFACE, description="its interface's name")
    mac: MacAddress | None = Field(None, description="its interface's address; derived from its name if not given")
    identity: RoleUri | None = Field(None, description="the URI in its certificate")


class ManagerSpec(Spec):
    """Who administers firewalls, and from where."""

    title: Titled = Field(description="what people call it")
    segment: Annotated[Name, Reference("segments")] = Field(
        description="the only segment that management connections may come from"
    )


class InterfaceSpec(Spec):
    """A firewall's attachment to a segment."""

    segment: Annotated[Name, Reference("segments")] = Field(description="the segment")
    addresses: Annotated[tuple[HostAddress, ...], LISTED] = Field(description="one of each family of the segment")
    mac: MacAddress | None = Field(None, description="derived from the names if not given")


class FirewallSpec(Spec):
    """A packet filter that joins segments."""

    title: Titled = Field(description="what people call it")
    site: Annotated[Name, Reference("sites")] | None = Field(None, description="the site it stands at")
    managed_by: Annotated[Name, Reference("managers")] = Field(description="who administers it")
    interfaces: dict[str, InterfaceSpec] = Field(
        description="two or more, each on a segment of its own, by the kernel's name for it (at most 15 bytes)"
    )
    cost: Cost = Field(
        COST, description="added to every path through it; traffic takes the cheapest path, and there must be only one"
    )
    identity: RoleUri | None = Field(None, description="the URI in its certificate for management")
    signatures: Signatures = Field(
        1, description="how many different operators of its manager must sign a bundle before it takes it"
    )


class ServiceSpec(Spec):
    """A declared application protocol, over mutual TLS."""

    title: Titled = Field(description="what people call it")
    transport: Annotated[Transport, choice(Transport)] = Field(Transport.TCP, description="`tcp`")
    ports: Annotated[tuple[Ports, ...], LISTED] = Field(description="where it listens; no port of a forbidden protocol")
    alpn: Alpn = Field(
        description="the protocol name both ends must agree on (ALPN, RFC 7301); none of a forbidden protocol, such as "
        "`h2`, `http/1.1`, `smtp`, `imap`"
    )
    prologue: Prologue | None = Field(
        None,
        description="the first bytes of either side inside TLS; a relay passes nothing that begins otherwise. None "
        "with which a forbidden protocol begins, such as `GET`, `EHLO`, `US`, `220`",
    )


class ForbiddenSpec(Spec):
    """A protocol that must never pass. It is blocked on every port; these ports name it in counters and reports.

    SMTP, HTTP, FTP and Telnet are forbidden in every network, with the TCP ports that IANA registers for them: `smtp`
    25, 465, 587; `http` 80, 591, 8008, 8080; `ftp` 20, 21, 989, 990; `telnet` 23, 992. They need no entry. Entries add
    to them: one of the same name adds ports and may give a title, and no other has any of these ports.
    """

    title: Titled = Field(description="what people call it")
    tcp: Annotated[tuple[Ports, ...], LISTED] = Field((), description="its TCP ports")
    udp: Annotated[tuple[Ports, ...], LISTED] = Field((), description="its UDP ports")


class FromSpec(Spec):
    """Which nodes: those that fit every key given. Each key takes one name or a list."""

    node: Annotated[tuple[Annotated[Name, Reference("nodes")], ...], LISTED] = Field((), description="these nodes")
    role: Annotated[tuple[Annotated[Name, Reference("roles")], ...], LISTED] = Field((), description="of these roles")
    tier: Annotated[tuple[Annotated[Name, Reference("tiers")], ...], LISTED] = Field((), description="in these tiers")
    site: Annotated[tuple[Annotated[Name, Reference("sites")], ...], LISTED] = Field((), description="at these sites")
    segment: Annotated[tuple[Annotated[Name, Reference("segments")], ...], LISTED] = Field(
        (), description="on these segments"
    )


class ToSpec(FromSpec):
    """As `from`, and relations of sites; or firewalls instead of nodes."""

    site: Annotated[tuple[Annotated[Name, Reference("sites")], ...], LISTED] = Field(
        (),
        description="at these sites; or one of `parent`, `child`, `same`, `other`: how the site stands to the one of "
        "`from`",
    )
    managed_by: Annotated[Name, Reference("managers")] | None = Field(
        None, description="the firewalls of this manager: their own management endpoints"
    )


class BasisSpec(Spec):
    """The law a flow rests on."""

    act: Text = Field(description="the act")
    article: Text = Field(description="the article, in quotes if it is a number")
    as_of: Day = Field(description="the text in force on this day is meant")
    confirmed: Truth = Field(False, description="`true` when the owner has checked the citation")


class LimitsSpec(Spec):
    """What a flow is held to on each firewall that it crosses: as a whole, and each source address of it.

    Without a number of its own, a source may have a quarter of the total, rounded up, or an equal share where the nodes
    that may open connections have fewer than four addresses. A node with an address of each family has both: one that
    takes all it may leaves half to the others. No source may have more than the whole flow. A flow always has both
    totals, its author's or the defaults: each connection takes a place in the firewall's table, which all flows share.
    """

    rate: Rate = Field(DEFAULT_RATE, description="new connections per second, over the whole flow")
    connections: Count = Field(DEFAULT_CONNECTIONS, description="concurrent connections, over the whole flow")
    rate_per_source: Rate | None = Field(
        None, description="new connections per second, of each source address; without it, a share of `rate`"
    )
    connections_per_source: Count | None = Field(
        None, description="concurrent connections, of each source address; without it, a share of `connections`"
    )
    hours: Annotated[tuple[Hours, ...], LISTED] = Field(
        (),
        description="service hours or batch windows, in the network's time zone; an end before the start is on the "
        "next day, and `24:00` is the end of the day",
    )


class FlowSpec(Spec):
    """A permitted kind of connection, and why it is permitted. What no flow permits does not pass."""

    title: Titled = Field(description="what people call it")
    from_: FromSpec = Field(alias="from", description="who opens connections")
    to: ToSpec = Field(description="who answers")
    service: Annotated[Name, Reference("services")] = Field(description="the application protocol")
    assurance: Annotated[Assurance, choice(Assurance)] = Field(
        description="how mutual TLS is enforced on the firewalls: `inspect` (TLS 1.2 end to end, both certificates "
        "seen by the inline engine) or `terminate` (TLS 1.3, ended and begun anew on the firewall's relay)"
    )
    basis: BasisSpec = Field(description="the law it rests on")
    affair: Text = Field(description="the authorised affair (利用可能事務)")
    owner: Text = Field(description="who answers for it")
    review: Day = Field(description="when it must be reviewed next; a warning when that is past")
    limits: LimitsSpec = Field(default_factory=lambda: LimitsSpec.model_validate({}), description="what it is held to")
    effective_from: Day | None = Field(None, description="not compiled before this day")
    effective_until: Day | None = Field(None, description="its last day; firewalls close it by themselves after it")


class InvariantSpec(Spec):
    """What must never be permitted, whatever the flows say."""

    title: Titled = Field(description="what people call it")
    from_: FromSpec = Field(alias="from", description="who must not open connections")
    to: FromSpec = Field(description="to whom")


class TemplateSpec(Spec):
    """Entries that are made once for each row of a table (CSV, UTF-8, with a header).

    `{column}` in any name or value stands for the row's cell; an empty cell leaves its key out.
    """

    table: Text = Field(description="the CSV file, in the directory of the topology or below")
    sites: dict[str, SiteSpec] = Field({}, description="as the section of that name")
    segments: dict[str, SegmentSpec] = Field({}, description="as the section of that name")
    managers: dict[str, ManagerSpec] = Field({}, description="as the section of that name")
    nodes: dict[str, NodeSpec] = Field({}, description="as the section of that name")
    firewalls: dict[str, FirewallSpec] = Field({}, description="as the section of that name")


class TopologySpec(Spec):
    """A whole network. Names are keys; each is a name of its section only."""

    network: NetworkSpec = Field(description="the network as a whole")
    tiers: dict[str, TierSpec] = Field(description="levels of trust")
    sites: dict[str, SiteSpec] = Field({}, description="organisations' places")
    segments: dict[str, SegmentSpec] = Field(description="layer-2 networks")
    roles: dict[str, RoleSpec] = Field({}, description="what nodes are")
    nodes: dict[str, NodeSpec] = Field({}, description="hosts")
    managers: dict[str, ManagerSpec] = Field({}, description="who administers firewalls")
    firewalls: dict[str, FirewallSpec] = Field({}, description="packet filters")
    services: dict[str, ServiceSpec] = Field({}, description="application protocols")
    forbidden: dict[str, ForbiddenSpec] = Field(
        {}, description="protocols that must never pass, beside SMTP, HTTP, FTP and Telnet"
    )
    flows: dict[str, FlowSpec] = Field({}, description="what may pass, and why")
    invariants: dict[str, InvariantSpec] = Field({}, description="what must never be permitted")
    templates: dict[str, TemplateSpec] = Field({}, description="entries made from tables")


def references(field: Any) -> str | None:
    """Return the section whose ids a field's values are, None if they are none.

    Args:
        field: A pydantic ``FieldInfo``, or an annotation.

    """
    for found in (*getattr(field, "metadata", ()), *getattr(field, "__metadata__", ())):
        if isinstance(found, Reference):
            return found.section
    inner = getattr(field, "annotation", field)
    for argument in getattr(inner, "__args__", ()):
        section = references(argument)
        if section is not None:
            return section
    return None
