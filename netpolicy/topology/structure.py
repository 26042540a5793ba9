"""Whether tiers, sites, segments, nodes and firewalls fit each other."""

from __future__ import annotations

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from netpolicy.topology import schema
from netpolicy.topology.draft import Draft, Entry
from netpolicy.topology.fields import nearest_name
from netpolicy.topology.findings import Findings
from netpolicy.topology.model import SegmentKind


def check_structure(draft: Draft, findings: Findings) -> None:
    """Report what cannot stand together."""
    _check_network(draft, findings)
    _check_sites(draft, findings)
    for segment in draft.of(schema.SegmentSpec).values():
        _check_segment(segment, findings)
    for node in draft.of(schema.NodeSpec).values():
        _check_node(draft, node, findings)
    for firewall in draft.of(schema.FirewallSpec).values():
        _check_firewall(firewall, findings)
    for manager in draft.of(schema.ManagerSpec).values():
        place = draft.of(schema.SegmentSpec).get(manager.spec.segment)
        if place is not None and place.spec.kind is not SegmentKind.LAN:
            message = f"manager '{manager.id}' works from segment '{place.id}', a {place.spec.kind}"
            findings.error(manager.at("segment"), message, "a segment of kind 'lan'")
    _check_identities(draft, findings)


def _check_network(draft: Draft, findings: Findings) -> None:
    if draft.network is None:
        return
    name = draft.network.spec.timezone
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        near = nearest_name(name, sorted(available_timezones()))
        spot = draft.network.at("timezone")
        findings.error(spot, f"there is no time zone '{name}'", "an IANA name such as 'Asia/Tokyo'", near)


def _check_sites(draft: Draft, findings: Findings) -> None:
    sites = draft.of(schema.SiteSpec)
    codes: dict[str, str] = {}
    for site in sites.values():
        spec = site.spec
        if site.id in schema.SITE_RELATIONS:
            message = f"'{site.id}' is a relation of sites, so no site can be called that"
            findings.error(site.at(), message, "another name")
        if spec.code is not None:
            digit = check_digit(spec.code[:5])
            if spec.code[5] != digit:
                message = f"code '{spec.code}' of site '{site.id}' has a wrong check digit"
                findings.error(site.at("code"), message, f"'{spec.code[:5]}{digit}'")
            if codes.setdefault(spec.code, site.id) != site.id:
                message = f"sites '{codes[spec.code]}' and '{site.id}' have the same code, '{spec.code}'"
                findings.error(site.at("code"), message, "a code of its own for each")
        if spec.disconnected_until is not None:
            _check_disconnection(draft, site, findings)
        if _circular(sites, site.id):
            findings.error(site.at("parent"), f"site '{site.id}' is above itself", "a parent that is not below it")


def _check_disconnection(draft: Draft, site: Entry[schema.SiteSpec], findings: Findings) -> None:
    until = site.spec.disconnected_until
    if site.spec.connected:
        message = f"site '{site.id}' is connected, and disconnected until {until}"
        findings.error(site.at("disconnected_until"), message, "'connected: false', or no such key")
    elif until is not None and draft.network is not None and until < draft.network.spec.as_of:
        message = f"site '{site.id}' was to be disconnected until {until}, and still is"
        findings.warning(site.at("disconnected_until"), message, "'connected: true', or a later day")


def check_digit(digits: str) -> str:
    """Return the check digit of a local government's code (昭和43年自治省告示: modulus 11, weights 6 to 2)."""
    total = sum(int(digit) * weight for digit, weight in zip(digits, (6, 5, 4, 3, 2), strict=True))
    return str((11 - total % 11) % 10 if total >= 11 else (11 - total) % 10)


def _circular(sites: dict[str, Entry[schema.SiteSpec]], start: str) -> bool:
    seen: set[str] = set()
    above = sites[start].spec.parent
    while above is not None and above in sites and above not in seen:
        if above == start:
            return True
        seen.add(above)
        above = sites[above].spec.parent
    return False


def _check_segment(segment: Entry[schema.SegmentSpec], findings: Findings) -> None:
    kind, tier = segment.spec.kind, segment.spec.tier
    if kind is SegmentKind.LAN and tier is None:
        findings.error(segment.at(), f"segment '{segment.id}' has no 'tier'", "the tier of a segment of kind 'lan'")
    if kind is not SegmentKind.LAN and tier is not None:
        message = f"segment '{segment.id}' is of tier '{tier}' and of kind '{kind}', which belongs to no tier"
        findings.error(segment.at("tier"), message, "kind 'lan', or no 'tier'")


def _check_node(draft: Draft, node: Entry[schema.NodeSpec], findings: Findings) -> None:
    segment = draft.of(schema.SegmentSpec).get(node.spec.segment)
    role = draft.of(schema.RoleSpec).get(node.spec.role)
    if draft.known("firewalls", node.id):
        message = f"'{node.id}' is a node and a firewall"
        findings.error(node.at(), message, "names that are not shared by nodes and firewalls")
    if segment is None or role is None:
        return
    if segment.spec.kind is SegmentKind.DEDICATED_LINE:
        message = f"node '{node.id}' stands on dedicated line '{segment.id}': a tier boundary without a firewall"
        findings.error(node.at("segment"), message, "only firewalls on a dedicated line")
    elif segment.spec.tier != role.spec.tier:
        has = f"of tier '{role.spec.tier}'" if role.spec.tier else f"of role '{role.id}', which is outside all tiers,"
        is_ = f"of tier '{segment.spec.tier}'" if segment.spec.tier else "outside all tiers"
        message = f"node '{node.id}' {has} stands on segment '{segment.id}' {is_}: a tier boundary without a firewall"
        wanted = f"a segment of tier '{role.spec.tier}'" if role.spec.tier else "an external segment"
        findings.error(node.at("segment"), message, f"{wanted}, or another role")


def _check_firewall(firewall: Entry[schema.FirewallSpec], findings: Findings) -> None:
    interfaces = firewall.spec.interfaces
    if len(interfaces) < 2:
        message = (
            f"firewall '{firewall.id}' has {len(interfaces) or 'no'} interface{'' if len(interfaces) == 1 else 's'}"
        )
        findings.error(firewall.at("interfaces") if interfaces else firewall.at(), message, "two or more")
    joined: dict[str, str] = {}
    for name, interface in interfaces.items():
        first = joined.setdefault(interface.segment, name)
        if first != name:
            message = f"interfaces '{first}' and '{name}' of firewall '{firewall.id}' are on one segment"
            findings.error(firewall.at("interfaces", name, "segment"), message, "a segment of its own for each")


def _check_identities(draft: Draft, findings: Findings) -> None:
    seen: dict[str, str] = {}
    owners: list[Entry[schema.NodeSpec] | Entry[schema.FirewallSpec]] = [
        *draft.of(schema.NodeSpec).values(),
        *draft.of(schema.FirewallSpec).values(),
    ]
    for owner in owners:
        identity = owner.spec.identity
        if identity is not None and seen.setdefault(identity, owner.id) != owner.id:
            message = f"'{seen[identity]}' and '{owner.id}' have the same identity, '{identity}'"
            findings.error(owner.at("identity"), message, "an identity of its own for each")
