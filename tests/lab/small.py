"""Two LANs, each behind a firewall, with a dedicated line between them, and one permitted flow."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from ipaddress import ip_address, ip_network

from netpolicy.topology.model import (
    Assurance,
    Basis,
    Firewall,
    Flow,
    ForbiddenProtocol,
    Interface,
    Limits,
    Manager,
    Node,
    Place,
    PortRange,
    Role,
    Segment,
    SegmentKind,
    Selector,
    Service,
    Site,
    Tier,
    Title,
    Topology,
    Transport,
)

PLACE = Place("small", 1, 1)
PORT = 17000
AMPLE = Limits(rate=1_000_000, connections=1_000_000)
"""For what begins connections as fast as it can, and ends none of them."""
RELAYABLE = Limits(rate=1_000_000, connections=5_000)
"""As ample as a relay can be: it needs two files for each connection, and a process gets some thousands."""
_LIMITS = Limits(rate=1000)
"""So that a test of as many connections as a flow may have takes a second, not ten."""


def _segment(name: str, tier: str | None, number: int) -> Segment:
    prefixes = (ip_network(f"10.77.{number}.0/24"), ip_network(f"fd77:0:0:{number}::/64"))
    kind = SegmentKind.LAN if tier else SegmentKind.DEDICATED_LINE
    return Segment(name, Title(name), kind, tier, name if tier else None, prefixes, PLACE)


def _interface(name: str, segment: str, number: int, host: int) -> Interface:
    addresses = (ip_address(f"10.77.{number}.{host}"), ip_address(f"fd77:0:0:{number}::{host:x}"))
    return Interface(name, segment, addresses, f"02:77:00:00:{number:02x}:{host:02x}")


def _node(name: str, segment: str, number: int, host: int) -> Node:
    return Node(name, Title(name), f"{segment}-server", segment, _interface("eth0", segment, number, host), None, PLACE)


def _firewall(name: str, *interfaces: Interface) -> Firewall:
    return Firewall(name, Title(name), None, "operator", interfaces, 1, None, 1, PLACE)


def small_topology(
    network: str = "small", assurance: Assurance = Assurance.INSPECT, limits: Limits = _LIMITS
) -> Topology:
    """Return ``town`` (alpha, beta) - edge - ``line`` - core - ``hall`` (gamma); alpha may reach gamma's tcp/17000."""
    segments = [_segment("town", "local", 1), _segment("line", None, 2), _segment("hall", "central", 3)]
    nodes = [_node("alpha", "town", 1, 10), _node("beta", "town", 1, 11), _node("gamma", "hall", 3, 10)]
    firewalls = [
        _firewall("edge", _interface("lan", "town", 1, 1), _interface("wan", "line", 2, 1)),
        _firewall("core", _interface("wan", "line", 2, 2), _interface("lan", "hall", 3, 1)),
    ]
    flow = Flow(
        id="notice",
        title=Title("notice"),
        sources=Selector(nodes=("alpha",)),
        destinations=Selector(nodes=("gamma",)),
        service="app",
        assurance=assurance,
        basis=Basis("act", "1", date(2026, 1, 1), confirmed=True),
        affair="test",
        owner="tests",
        review=date(2030, 1, 1),
        limits=limits,
        effective_from=None,
        effective_until=None,
        place=PLACE,
    )
    sites = [Site(name, Title(name), tier, None, None, True, None, PLACE) for name, tier in _SITES]
    return Topology(
        id=network,
        title=Title("A small network"),
        as_of=date(2026, 11, 24),
        timezone="Asia/Tokyo",
        tiers={tier: Tier(tier, Title(tier)) for _, tier in _SITES},
        segments={segment.id: segment for segment in segments},
        sites={site.id: site for site in sites},
        roles={f"{name}-server": Role(f"{name}-server", Title(name), tier) for name, tier in _SITES},
        nodes={node.id: node for node in nodes},
        managers={"operator": Manager("operator", Title("operator"), "hall")},
        firewalls={firewall.id: firewall for firewall in firewalls},
        services={"app": Service("app", Title("app"), Transport.TCP, (PortRange(PORT, PORT),), "app/1", "JUKI", PLACE)},
        forbidden={"http": ForbiddenProtocol("http", Title("HTTP"), (PortRange(80, 80),), ())},
        flows={flow.id: flow},
        invariants={},
        digest="0" * 64,
    )


def of_family(topology: Topology, version: int) -> Topology:
    """Return a network that has addresses of one family alone: 4 or 6."""

    def of(interface: Interface) -> Interface:
        return replace(interface, addresses=tuple(each for each in interface.addresses if each.version == version))

    def within(segment: Segment) -> Segment:
        return replace(segment, prefixes=tuple(each for each in segment.prefixes if each.version == version))

    nodes = {node.id: replace(node, interface=of(node.interface)) for node in topology.nodes.values()}
    firewalls = {
        each.id: replace(each, interfaces=tuple(of(interface) for interface in each.interfaces))
        for each in topology.firewalls.values()
    }
    segments = {segment.id: within(segment) for segment in topology.segments.values()}
    return replace(topology, segments=segments, nodes=nodes, firewalls=firewalls)


def crowded_topology(network: str, limits: Limits) -> Topology:
    """Return the small network with ``delta`` beside gamma; alpha and beta may ask both, inspected and relayed.

    Both flows, ``notice`` (tcp/17000) and ``letter`` (tcp/17001), have the same limits.
    """
    topology = small_topology(network)
    sources, destinations = Selector(nodes=("alpha", "beta")), Selector(nodes=("gamma", "delta"))
    notice = replace(topology.flows["notice"], sources=sources, destinations=destinations, limits=limits)
    letter = replace(notice, id="letter", title=Title("letter"), service="mail", assurance=Assurance.TERMINATE)
    app = topology.services["app"]
    mail = replace(app, id="mail", title=Title("mail"), ports=(PortRange(PORT + 1, PORT + 1),), alpn="mail/1")
    return replace(
        topology,
        nodes={**topology.nodes, "delta": _node("delta", "hall", 3, 11)},
        services={"app": app, "mail": mail},
        flows={"notice": notice, "letter": letter},
    )


_SITES = (("town", "local"), ("hall", "central"))
