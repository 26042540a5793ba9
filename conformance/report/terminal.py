"""What a person sees at the end of a run."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.table import Table
from rich.text import Text

from conformance.outcome import Outcome, Status, Verdict
from conformance.results import why
from conformance.run import Summary
from conformance.witness import STAGE as WITNESS
from netpolicy.topology.model import Topology

_SHOWN = 25
"""Deviations on the terminal; the report holds all."""


def print_report(summary: Summary, console: Console) -> None:
    """Print the matrix of zones, the stages, what deviated, and one line that says whether it holds.

    Args:
        summary: Of the run.
        console: Which takes nothing for markup: names, titles and what was observed come from elsewhere.

    """
    if summary.results.matrix:
        console.print(_zones(summary))
        console.print(_protocols(summary))
        console.print("  ✓ permitted and passed   ✗ denied and dropped, with proof   ! deviates\n")
    console.print(_stages(summary))
    for outcome in summary.results.outcomes[:_SHOWN]:
        console.print(_line(outcome), soft_wrap=True)
    more = len(summary.results.outcomes) - _SHOWN
    if more > 0:
        console.print(f"… and {more} more, in the report")
    flows = sorted({outcome.expected.flow for outcome in summary.results.outcomes if outcome.expected.flow})
    if flows:
        console.print(f"flows concerned: {', '.join(flows)}", soft_wrap=True)
    for left_out in summary.left_out:
        console.print(f"left out: {left_out}", soft_wrap=True)
    console.print(_verdict(summary), soft_wrap=True)


def _zones(summary: Summary) -> Table:
    """Return who may speak with whom, by tier: counts of probes at their firewalls."""
    topology = summary.topology
    cells: dict[tuple[str, str], Counter[str]] = {}
    for (source, destination), cell in summary.results.matrix.items():
        if destination in topology.nodes:
            zones = (_zone(topology, source), _zone(topology, destination))
            cells.setdefault(zones, Counter()).update(cell.values())
    names = [zone for zone in (*topology.tiers, _EXTERNAL) if any(zone in zones for zones in cells)]
    table = Table(title=f"{topology.title}: from ↓ to →", title_justify="left")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for source in names:
        table.add_row(source, *(_cell(cells.get((source, destination))) for destination in names))
    return table


def _protocols(summary: Summary) -> Table:
    """Return what was tried between nodes, and to firewalls, by protocol."""
    groups: dict[str, Counter[str]] = {}
    ports: dict[str, set[str]] = {}
    for cell in summary.results.matrix.values():
        for probe, mark in cell.items():
            name, _, port = probe.rpartition(" ")
            if "/" not in port:
                if probe != _ECHO:
                    continue  # not a probe of the matrix
                name, port = probe, ""
            name = _OTHER if name.startswith("beside ") or name == "random" else name
            name = _SERVICES if name in summary.topology.services else name
            groups.setdefault(name, Counter())[mark] += 1
            ports.setdefault(name, set()).add(port)
    table = Table()
    for heading in ("protocol", "ports", "pairs × ports"):
        table.add_column(heading, justify="right" if heading.startswith("pairs") else "left")
    for name in sorted(groups, key=lambda each: (each == _SERVICES, each == _OTHER, each)):
        shown = sorted(ports[name], key=_port_order)
        text = ", ".join(shown) if len(shown) <= _PORTS_SHOWN else f"{len(shown)} ports"
        table.add_row(name, text, _cell(groups[name]))
    return table


def _port_order(port: str) -> tuple[str, int]:
    transport, _, number = port.partition("/")
    return transport, int(number or 0)


_SERVICES, _OTHER = "declared services", "ports beside them, and random ones"
_PORTS_SHOWN = 8
_ECHO = "ICMP echo"
_EXTERNAL = "external"


def _zone(topology: Topology, node: str) -> str:
    return topology.segments[topology.nodes[node].interface.segment].tier or _EXTERNAL


def _cell(counts: Counter[str] | None) -> Text:
    if not counts:
        return Text("·")
    wrong = counts[Status.DEVIATION.value] + counts[Status.ERROR.value] + counts[Status.SKIP.value]
    permitted = counts[Verdict.PERMIT.value]
    parts = [Text(f"✓{permitted}", "green")] if permitted else []
    parts.append(Text(f"✗{counts[Verdict.DENY.value]}"))
    if wrong:
        parts.append(Text(f"!{wrong}", "bold red"))
    return Text(" ").join(parts)


def _stages(summary: Summary) -> Table:
    table = Table()
    statuses = [Status.DEVIATION, Status.ERROR, Status.SKIP, *([Status.FAULT] if WITNESS in summary.stages else [])]
    for heading in ("stage", "permitted", "denied", *(each.value for each in statuses), "seconds"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage in summary.stages:
        passed: Counter[str] = Counter()
        for each, count in summary.results.passed.items():
            if each.stage == stage:
                passed[each.verdict] += count
        failed = Counter(outcome.status for outcome in summary.results.outcomes if outcome.stage == stage)
        table.add_row(
            stage,
            *(f"{passed[verdict.value]:,}" for verdict in (Verdict.PERMIT, Verdict.DENY)),
            *(f"{failed[status]:,}" for status in statuses),
            f"{summary.seconds.get(stage, 0.0):.1f}",
        )
    return table


def _line(outcome: Outcome) -> str:
    expected = outcome.expected
    flow = f", flow {expected.flow}" if expected.flow else ""
    where = f" at {outcome.firewall}" if outcome.firewall else ""
    return (
        f"{outcome.status.value.upper()} {outcome.stage}{where}: {outcome.source} → {outcome.destination}, "
        f"{outcome.probe} (IPv{outcome.family}); expected {expected.verdict} ({why(expected)}{flow}); "
        f"{outcome.observed}"
    )


def _verdict(summary: Summary) -> str:
    results = summary.results
    total = sum(results.count(status) for status in Status)
    if summary.exit_code == 0:
        where = summary.firewalls[0] if len(summary.firewalls) == 1 else f"{len(summary.firewalls)} firewalls"
        beside = f"; left out: {len(summary.left_out)}, see above" if summary.left_out else ""
        return f"holds: {total:,} cases at {where}, each as the topology demands{beside}"
    if total == 0:
        return "no verdict: nothing was tried"
    faults = [Status.FAULT] if results.count(Status.FAULT) else []
    counts = ", ".join(
        f"{results.count(status):,} {status.value}s"
        for status in (Status.DEVIATION, Status.ERROR, Status.SKIP, *faults)
    )
    return f"does not hold: {counts} in {total:,} cases"
