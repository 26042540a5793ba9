"""Whether services, flows and invariants make sense by themselves and beside each other."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from itertools import combinations
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from netpolicy.topology import schema
from netpolicy.topology.draft import POLICY, Draft, Entry
from netpolicy.topology.findings import Findings
from netpolicy.topology.forbidden import ALWAYS, begun, named
from netpolicy.topology.hours import whole_week
from netpolicy.topology.model import PortRange
from netpolicy.topology.references import check_names


def check_policy(draft: Draft, findings: Findings) -> set[tuple[str, str]]:
    """Report what is wrong with services, forbidden protocols, flows and invariants.

    Returns:
        Section and name of each entry that is wrong.

    """
    wrong: set[tuple[str, str]] = set()
    for section in POLICY:
        for entry in draft.sections[section].values():
            before = findings.error_count
            check_names(draft, section, entry, findings)
            _check(draft, entry, findings)
            if findings.error_count > before:
                wrong.add((section, entry.id))
    for flow in draft.of(schema.FlowSpec).values():
        if flow.spec.service not in draft.sections["services"] or ("services", flow.spec.service) in wrong:
            wrong.add(("flows", flow.id))
    return wrong


def overlap(first: PortRange, second: PortRange) -> bool:
    """Tell whether two ranges have a port in common."""
    return first.first <= second.last and second.first <= first.last


def _check(draft: Draft, entry: Entry[schema.Spec], findings: Findings) -> None:
    match entry.spec:
        case schema.ServiceSpec() as service:
            _check_service(draft, entry, service, findings)
        case schema.ForbiddenSpec() as forbidden:
            _check_forbidden(draft, entry, forbidden, findings)
        case schema.FlowSpec() as flow:
            _check_from(entry, flow.from_, findings)
            _check_to(entry, flow, findings)
            _check_limits(entry, flow.limits, findings)
            _check_hours(draft, entry, flow.limits, findings)
            _check_dates(draft, entry, flow, findings)
        case schema.InvariantSpec() as invariant:
            _check_from(entry, invariant.from_, findings)
            _check_selects(entry, "to", invariant.to, findings)


def _check_disjoint(entry: Entry[schema.Spec], key: str, ports: tuple[PortRange, ...], findings: Findings) -> None:
    for (_, first), (number, second) in combinations(enumerate(ports), 2):
        if overlap(first, second):
            message = f"ports '{first}' and '{second}' of '{entry.id}' overlap"
            findings.error(entry.at(key, number), message, "each port once")


def _check_service(draft: Draft, entry: Entry[schema.Spec], service: schema.ServiceSpec, findings: Findings) -> None:
    _check_disjoint(entry, "ports", service.ports, findings)
    forbidden = [(name, each.protocol.tcp, "which no network may let pass") for name, each in ALWAYS.items()]
    forbidden += [(each.id, each.spec.tcp, "which is forbidden") for each in draft.of(schema.ForbiddenSpec).values()]
    for number, ports in enumerate(service.ports):
        for name, theirs, why in forbidden:
            if any(overlap(ports, each) for each in theirs):
                message = f"port '{ports}' of service '{entry.id}' is one of '{name}', {why}"
                findings.error(entry.at("ports", number), message, "a port that no forbidden protocol is known by")
                break
    _check_alpn(draft, entry, service.alpn, findings)
    found = None if service.prologue is None else begun(service.prologue)
    if found is not None:
        protocol, word = found
        message = (
            f"'{service.prologue}' of service '{entry.id}' lets '{protocol.id}' begin (with {word}), "
            "which no network may let pass"
        )
        findings.error(entry.at("prologue"), message, "first bytes of a protocol of its own, such as 'JUKI'")


def _check_alpn(draft: Draft, entry: Entry[schema.Spec], alpn: str, findings: Findings) -> None:
    protocol, why = named(alpn), "which no network may let pass"
    name = None if protocol is None else protocol.id
    if name is None:
        name, why = alpn.lower().split("/")[0], "which is forbidden"
        if name not in draft.of(schema.ForbiddenSpec):
            return
    message = f"'{alpn}' of service '{entry.id}' is a name of '{name}', {why}"
    near = f"{entry.id}/1"
    findings.error(entry.at("alpn"), message, "the name of a protocol of its own", None if named(near) else near)


def _check_forbidden(
    draft: Draft, entry: Entry[schema.Spec], forbidden: schema.ForbiddenSpec, findings: Findings
) -> None:
    if not forbidden.tcp and not forbidden.udp and entry.id not in ALWAYS:
        findings.error(entry.at(), f"forbidden protocol '{entry.id}' has no port", "'tcp' or 'udp'")
    others = {name: each.protocol for name, each in ALWAYS.items() if name != entry.id}
    for key, ports in (("tcp", forbidden.tcp), ("udp", forbidden.udp)):
        _check_disjoint(entry, key, ports, findings)
        taken = [(name, other.tcp if key == "tcp" else other.udp, True) for name, other in others.items()]
        for each in draft.of(schema.ForbiddenSpec).values():
            if each.id == entry.id:
                break  # each pair once, at the later one
            taken.append((each.id, each.spec.tcp if key == "tcp" else each.spec.udp, False))
        for number, port in enumerate(ports):
            for name, theirs, always in taken:
                if any(overlap(port, each) for each in theirs):
                    which = f"'{name}', which is forbidden always," if always else f"'{name}'"
                    message = f"{key} port '{port}' belongs to {which} and to '{entry.id}'"
                    expected = "each port with one forbidden protocol"
                    findings.error(entry.at(key, number), message, expected, name if always else None)
                    break


def _check_selects(entry: Entry[schema.Spec], key: str, selector: schema.FromSpec, findings: Findings) -> None:
    if not any((selector.node, selector.role, selector.tier, selector.site, selector.segment)):
        valid = ", ".join(name for name in schema.FromSpec.model_fields)
        findings.error(entry.at(key), f"'{key}' of '{entry.id}' selects everyone", f"at least one of {valid}")


def _check_from(entry: Entry[schema.Spec], selector: schema.FromSpec, findings: Findings) -> None:
    _check_selects(entry, "from", selector, findings)


def _check_to(entry: Entry[schema.Spec], flow: schema.FlowSpec, findings: Findings) -> None:
    to = flow.to
    relations = [name for name in to.site if name in schema.SITE_RELATIONS]
    if relations and len(to.site) > 1:
        findings.error(entry.at("to", "site"), f"relation '{relations[0]}' stands beside other sites", "it alone")
    if to.managed_by is None:
        _check_selects(entry, "to", to, findings)
        return
    for key, given in (("role", to.role), ("tier", to.tier), ("segment", to.segment)):
        if given:
            message = f"'{key}' selects nodes, but with 'managed_by' the flow '{entry.id}' ends on firewalls"
            findings.error(entry.at("to", key), message, "only 'site' and 'node' beside 'managed_by'")


def _check_limits(entry: Entry[schema.Spec], limits: schema.LimitsSpec, findings: Findings) -> None:
    for key, total, each in (
        ("rate", limits.rate, limits.rate_per_source),
        ("connections", limits.connections, limits.connections_per_source),
    ):
        if each is not None and each > total:
            message = f"one source of '{entry.id}' may have {each}, more than the whole flow ({total})"
            findings.error(entry.at("limits", f"{key}_per_source"), message, f"{total} or less")


def _check_hours(draft: Draft, entry: Entry[schema.Spec], limits: schema.LimitsSpec, findings: Findings) -> None:
    if whole_week(limits.hours):
        message = f"the hours of '{entry.id}' are the whole week, so they limit nothing"
        findings.warning(entry.at("limits", "hours"), message, "no hours, or fewer")
    elif limits.hours and draft.network is not None and not _steady(draft.network.spec):
        message = (
            f"flow '{entry.id}' has service hours in time zone '{draft.network.spec.timezone}', whose offset from UTC "
            "changes during the next two years; the kernel compares hours in UTC"
        )
        expected = "a time zone without daylight saving time, such as 'Asia/Tokyo' or 'Etc/UTC'"
        findings.error(entry.at("limits", "hours"), message, expected)


def _steady(network: schema.NetworkSpec) -> bool:
    """Tell whether the offset of the network's zone stays the same; of a zone that is none, which is told elsewhere."""
    try:
        zone = ZoneInfo(network.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return True
    noon = datetime.combine(network.as_of, time(12), tzinfo=zone)
    return len({(noon + timedelta(days=day)).utcoffset() for day in range(0, 732, 7)}) == 1


def _check_dates(draft: Draft, entry: Entry[schema.Spec], flow: schema.FlowSpec, findings: Findings) -> None:
    begins, ends = flow.effective_from, flow.effective_until
    if begins is not None and ends is not None and ends < begins:
        message = f"flow '{entry.id}' ends on {ends}, before it begins on {begins}"
        findings.error(entry.at("effective_until"), message, f"{begins} or later")
    if draft.network is None:
        return
    today = draft.network.spec.as_of
    if flow.review < today:
        message = f"the review of flow '{entry.id}' was due on {flow.review}"
        findings.warning(entry.at("review"), message, f"a review, and a date after {today}")
    if ends is not None and ends < today:
        message = f"flow '{entry.id}' ended on {ends} and is not compiled"
        findings.warning(entry.at("effective_until"), message, "no such flow any more")
    if flow.basis.as_of > today:
        message = f"the basis of flow '{entry.id}' is the law of {flow.basis.as_of}, after {today}"
        findings.warning(entry.at("basis", "as_of"), message, f"{today} or earlier")
