"""From entries that fit each other to the frozen topology."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from netpolicy.topology import schema
from netpolicy.topology.addressing import derived_mac
from netpolicy.topology.draft import Draft, Entry
from netpolicy.topology.forbidden import joined, with_always
from netpolicy.topology.hours import whole_week
from netpolicy.topology.model import (
    Basis,
    Firewall,
    Flow,
    ForbiddenProtocol,
    Interface,
    Invariant,
    Limits,
    Manager,
    Node,
    Role,
    Segment,
    Selector,
    Service,
    Site,
    SiteRelation,
    Tier,
    Title,
    Topology,
)


def assemble(draft: Draft, without: AbstractSet[tuple[str, str]]) -> Topology:
    """Return the topology of a sound draft.

    Args:
        draft: What was read; its network must be there.
        without: Section and name of entries to leave out.

    """
    if draft.network is None:
        raise ValueError("a draft without a network")
    network = draft.network.spec
    left_out = {section: {name for where, name in without if where == section} for section in draft.sections}
    flows = draft.of(schema.FlowSpec).values()
    invariants = draft.of(schema.InvariantSpec).values()
    return Topology(
        id=network.id,
        title=_title(network.title),
        as_of=network.as_of,
        timezone=network.timezone,
        tiers={each.id: Tier(each.id, _title(each.spec.title)) for each in draft.of(schema.TierSpec).values()},
        segments={each.id: _segment(each) for each in draft.of(schema.SegmentSpec).values()},
        sites={each.id: _site(each) for each in draft.of(schema.SiteSpec).values()},
        roles={each.id: _role(each) for each in draft.of(schema.RoleSpec).values()},
        nodes={each.id: _node(draft, each, network.id) for each in draft.of(schema.NodeSpec).values()},
        managers={each.id: _manager(each) for each in draft.of(schema.ManagerSpec).values()},
        firewalls={each.id: _firewall(each, network.id) for each in draft.of(schema.FirewallSpec).values()},
        services={
            each.id: _service(each)
            for each in draft.of(schema.ServiceSpec).values()
            if each.id not in left_out["services"]
        },
        forbidden=with_always(
            {
                each.id: _forbidden(each)
                for each in draft.of(schema.ForbiddenSpec).values()
                if each.id not in left_out["forbidden"]
            }
        ),
        flows={each.id: _flow(each) for each in flows if each.id not in left_out["flows"]},
        invariants={each.id: _invariant(each) for each in invariants if each.id not in left_out["invariants"]},
        digest=draft.digest,
    )


def _title(spec: schema.TitleSpec) -> Title:
    return Title(spec.en, spec.ja)


def _segment(entry: Entry[schema.SegmentSpec]) -> Segment:
    spec = entry.spec
    prefixes = tuple(sorted(spec.prefixes, key=lambda prefix: prefix.version))
    return Segment(entry.id, _title(spec.title), spec.kind, spec.tier, spec.site, prefixes, entry.place, spec.mtu)


def _site(entry: Entry[schema.SiteSpec]) -> Site:
    spec = entry.spec
    return Site(
        entry.id,
        _title(spec.title),
        spec.tier,
        spec.parent,
        spec.code,
        spec.connected,
        spec.disconnected_until,
        entry.place,
    )


def _role(entry: Entry[schema.RoleSpec]) -> Role:
    return Role(entry.id, _title(entry.spec.title), entry.spec.tier)


def _manager(entry: Entry[schema.ManagerSpec]) -> Manager:
    return Manager(entry.id, _title(entry.spec.title), entry.spec.segment)


def _interface(network: str, owner: str, name: str, spec: schema.NodeSpec | schema.InterfaceSpec) -> Interface:
    addresses = tuple(sorted(spec.addresses, key=lambda address: address.version))
    return Interface(name, spec.segment, addresses, spec.mac or derived_mac(network, owner, name))


def _node(draft: Draft, entry: Entry[schema.NodeSpec], network: str) -> Node:
    spec = entry.spec
    return Node(
        id=entry.id,
        title=_title(spec.title),
        role=spec.role,
        site=draft.of(schema.SegmentSpec)[spec.segment].spec.site,
        interface=_interface(network, entry.id, spec.interface, spec),
        identity=spec.identity,
        place=entry.place,
    )


def _firewall(entry: Entry[schema.FirewallSpec], network: str) -> Firewall:
    spec = entry.spec
    return Firewall(
        id=entry.id,
        title=_title(spec.title),
        site=spec.site,
        managed_by=spec.managed_by,
        interfaces=tuple(_interface(network, entry.id, name, each) for name, each in spec.interfaces.items()),
        cost=spec.cost,
        identity=spec.identity,
        signatures=spec.signatures,
        place=entry.place,
    )


def _service(entry: Entry[schema.ServiceSpec]) -> Service:
    spec = entry.spec
    ports = joined(spec.ports)
    return Service(entry.id, _title(spec.title), spec.transport, ports, spec.alpn, spec.prologue, entry.place)


def _forbidden(entry: Entry[schema.ForbiddenSpec]) -> ForbiddenProtocol:
    return ForbiddenProtocol(entry.id, _title(entry.spec.title), joined(entry.spec.tcp), joined(entry.spec.udp))


def _selector(spec: schema.FromSpec) -> Selector:
    relation = next((SiteRelation(name) for name in spec.site if name in schema.SITE_RELATIONS), None)
    if not isinstance(spec, schema.ToSpec):
        relation = None
    return Selector(
        nodes=spec.node,
        roles=spec.role,
        tiers=spec.tier,
        sites=() if relation else spec.site,
        segments=spec.segment,
        relation=relation,
        managed_by=spec.managed_by if isinstance(spec, schema.ToSpec) else None,
    )


def _flow(entry: Entry[schema.FlowSpec]) -> Flow:
    spec = entry.spec
    return Flow(
        id=entry.id,
        title=_title(spec.title),
        sources=_selector(spec.from_),
        destinations=_selector(spec.to),
        service=spec.service,
        assurance=spec.assurance,
        basis=Basis(spec.basis.act, spec.basis.article, spec.basis.as_of, spec.basis.confirmed),
        affair=spec.affair,
        owner=spec.owner,
        review=spec.review,
        limits=Limits(
            rate=spec.limits.rate,
            connections=spec.limits.connections,
            rate_per_source=spec.limits.rate_per_source,
            connections_per_source=spec.limits.connections_per_source,
            windows=() if whole_week(spec.limits.hours) else spec.limits.hours,
        ),
        effective_from=spec.effective_from,
        effective_until=spec.effective_until,
        place=entry.place,
    )


def _invariant(entry: Entry[schema.InvariantSpec]) -> Invariant:
    spec = entry.spec
    return Invariant(entry.id, _title(spec.title), _selector(spec.from_), _selector(spec.to), entry.place)
