"""Whether flows and invariants mean anyone, and whether they contradict each other: asked of the whole topology."""

from __future__ import annotations

from dataclasses import replace

from netpolicy.topology.ends import flow_groups, invariant_pairs_permitted, select_nodes
from netpolicy.topology.findings import Findings, Spot
from netpolicy.topology.model import Firewall, Flow, Invariant, Topology


def check_ends(topology: Topology, findings: Findings) -> None:
    """Report flows without ends, management from elsewhere, and invariants that flows break."""
    for flow in topology.flows.values():
        _check_flow(topology, flow, findings)
    for invariant in topology.invariants.values():
        _check_invariant(topology, invariant, findings)


def _check_flow(topology: Topology, flow: Flow, findings: Findings) -> None:
    sources = select_nodes(topology, flow.sources)
    spot = Spot(flow.place)
    if not sources:
        findings.error(spot, f"flow '{flow.id}' comes from no node: none fits its 'from'", "a 'from' that nodes fit")
        return
    if not _permits_anyone(topology, flow):
        _no_pairs(topology, flow, findings)
        return
    if not _leaves_a_segment(topology, flow):
        message = f"flow '{flow.id}' crosses no firewall: its ends are on one segment, and nothing holds it to anything"
        findings.warning(spot, message, "ends on different segments, or no such flow")
    if flow.destinations.managed_by is None:
        return
    manager = topology.managers[flow.destinations.managed_by]
    for node in sources:
        if node.interface.segment != manager.segment:
            message = (
                f"flow '{flow.id}' manages firewalls from node '{node.id}' on segment '{node.interface.segment}', "
                f"but manager '{manager.id}' works from segment '{manager.segment}'"
            )
            findings.error(spot, message, f"nodes on segment '{manager.segment}' only")


def _permits_anyone(topology: Topology, flow: Flow) -> bool:
    return any(True for group in flow_groups(topology, flow) for _ in group.pairs())


def _leaves_a_segment(topology: Topology, flow: Flow) -> bool:
    return any(
        isinstance(destination, Firewall) or source.interface.segment != destination.interface.segment
        for group in flow_groups(topology, flow)
        for source, destination in group.pairs()
    )


def _no_pairs(topology: Topology, flow: Flow, findings: Findings) -> None:
    if any(not site.connected for site in topology.sites.values()) and _would_have_pairs(topology, flow):
        message = f"flow '{flow.id}' permits nothing while sites are not connected"
        findings.warning(Spot(flow.place), message)
        return
    message = f"flow '{flow.id}' permits nothing: no node fits its 'to' for any of its 'from'"
    findings.error(Spot(flow.place), message, "a 'to' that nodes fit, other than the ones it comes from")


def _would_have_pairs(topology: Topology, flow: Flow) -> bool:
    sites = {name: replace(site, connected=True) for name, site in topology.sites.items()}
    whole = replace(topology, sites=sites)
    return _permits_anyone(whole, flow)


def _check_invariant(topology: Topology, invariant: Invariant, findings: Findings) -> None:
    spot = Spot(invariant.place)
    for key, selector in (("from", invariant.sources), ("to", invariant.destinations)):
        if not select_nodes(topology, selector):
            message = f"invariant '{invariant.id}' says nothing: no node fits its '{key}'"
            findings.warning(spot, message, f"a '{key}' that nodes fit")
    broken: dict[str, tuple[str, str]] = {}
    for flow, source, destination in invariant_pairs_permitted(topology, invariant):
        broken.setdefault(flow.id, (source.id, destination.id))
    for flow_id, (source_id, destination_id) in broken.items():
        message = (
            f"flow '{flow_id}' permits '{source_id}' to reach '{destination_id}', which invariant '{invariant.id}' "
            "says must never be"
        )
        findings.error(Spot(topology.flows[flow_id].place), message, f"ends that keep to '{invariant.id}'")
