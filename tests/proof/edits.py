"""Changes to the small network, and to its rules."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import date, time
from ipaddress import ip_address

from netpolicy.topology.model import (
    Assurance,
    Limits,
    PortRange,
    Selector,
    Title,
    Topology,
    Weekday,
    Window,
)

Edit = Callable[[Topology], Topology]


def _flow(**changes: object) -> Edit:
    def edit(topology: Topology) -> Topology:
        flow = replace(topology.flows["notice"], **changes)  # type: ignore[arg-type]
        return replace(topology, flows={**topology.flows, flow.id: flow})

    return edit


def _second_flow(topology: Topology) -> Topology:
    flow = replace(topology.flows["notice"], id="second", title=Title("second"), sources=Selector(nodes=("beta",)))
    return replace(topology, flows={**topology.flows, flow.id: flow})


def _without_flow(topology: Topology) -> Topology:
    return replace(topology, flows={name: flow for name, flow in topology.flows.items() if name != "notice"})


def _ports(topology: Topology) -> Topology:
    service = replace(topology.services["app"], ports=(PortRange(80, 80), PortRange(16999, 17003)))
    return replace(topology, services={"app": service})


def _moved(topology: Topology) -> Topology:
    node = topology.nodes["alpha"]
    addresses = (ip_address("10.77.1.99"), ip_address("fd77:0:0:1::99"))
    moved = replace(node, interface=replace(node.interface, addresses=addresses))
    return replace(topology, nodes={**topology.nodes, "alpha": moved})


def _disconnected(topology: Topology) -> Topology:
    return replace(topology, sites={**topology.sites, "town": replace(topology.sites["town"], connected=False)})


def _without_firewall(topology: Topology) -> Topology:
    return replace(topology, firewalls={"core": topology.firewalls["core"]}, flows={})


_WINDOW = Window((Weekday.MON, Weekday.WED, Weekday.SUN), time(20), time(6))
EDITS: dict[str, Edit] = {
    "flow added": _second_flow,
    "flow removed": _without_flow,
    "relayed": _flow(assurance=Assurance.TERMINATE),
    "hours": _flow(limits=Limits(windows=(_WINDOW,))),
    "last day": _flow(effective_until=date(2026, 12, 31)),
    "other source": _flow(sources=Selector(nodes=("beta",))),
    "turned": _flow(sources=Selector(nodes=("gamma",)), destinations=Selector(nodes=("alpha", "beta"))),
    "ports": _ports,
    "address moved": _moved,
    "site disconnected": _disconnected,
    "firewall gone": _without_firewall,
}


def edited(topology: Topology, chance: random.Random) -> Topology:
    """Return a topology after some of the changes."""
    for name in chance.sample(sorted(EDITS), chance.randint(1, 3)):
        if "notice" in topology.flows or name not in {
            "relayed",
            "hours",
            "last day",
            "other source",
            "turned",
            "flow added",
        }:
            topology = EDITS[name](topology)
    return topology


def without_a_line(rules: str, chance: random.Random) -> str:
    """Return a ruleset without one of its rules or elements."""
    lines = rules.splitlines(keepends=True)
    able = [
        place
        for place, line in enumerate(lines)
        if (line.startswith("\t\t") and line.rstrip().endswith(("accept", "drop", "goto unpermitted,")))
        or "goto deny" in line
    ]
    gone = chance.choice(able)
    return "".join(lines[:gone] + lines[gone + 1 :])
