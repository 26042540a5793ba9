"""Alerts counted by flow, firewall, signature and technique."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from netpolicy.alerts.read import Drop, Packet, Seen


@dataclass(frozen=True, slots=True)
class Row:
    """All alerts of one signature at one firewall."""

    flow: str
    firewall: str
    signature: str
    sid: int
    technique: str
    alerts: int
    blocked: int
    """How many of them were dropped by the engine."""
    dropped: tuple[tuple[str, int], ...]
    """Why the kernel dropped the same packets, and how many of them: reason and count, most first."""
    first: str
    last: str
    message: str


def summarise(alerts: Iterable[Seen], drops: Iterable[Drop] = ()) -> list[Row]:
    """Return one row for each signature at each firewall, most alerts first.

    An alert and a drop are of the same packet if firewall, transport, addresses and ports are the same: an engine sees
    what comes in by its wire before the kernel does, and nothing rewrites addresses in between.
    """
    reasons: dict[tuple[str, Packet], Counter[str]] = {}
    for drop in drops:
        reasons.setdefault((drop.firewall, drop.packet), Counter())[drop.reason] += 1
    groups: dict[tuple[str, int, str], list[Seen]] = {}
    for alert in alerts:
        groups.setdefault((alert.firewall, alert.sid, alert.signature), []).append(alert)
    rows = [_row(group, reasons) for group in groups.values()]
    return sorted(rows, key=lambda row: (-row.alerts, row.firewall, row.sid, row.signature))


def _row(group: list[Seen], reasons: dict[tuple[str, Packet], Counter[str]]) -> Row:
    first = group[0]
    dropped: Counter[str] = Counter()
    for packet in {alert.packet for alert in group}:
        dropped.update(reasons.get((first.firewall, packet), {}))
    times = sorted(alert.time for alert in group)
    return Row(
        flow=first.flow,
        firewall=first.firewall,
        signature=first.signature,
        sid=first.sid,
        technique=first.technique,
        alerts=len(group),
        blocked=sum(alert.blocked for alert in group),
        dropped=tuple(sorted(dropped.items(), key=lambda item: (-item[1], item[0]))),
        first=times[0],
        last=times[-1],
        message=first.message,
    )
