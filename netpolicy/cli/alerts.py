"""``netpolicy alerts``: what the inline engines said."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from netpolicy.alerts import AlertsError, Row, read_alerts, read_drops, summarise
from netpolicy.alerts.read import sources

_HOLDS, _FOUND, _BAD_INPUT = 0, 1, 2


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "alerts",
        help="sum up what the inline engines said",
        description="Count the alerts of EVE files by flow, firewall, signature and ATT&CK technique, and the ends of "
        "engines and relays that a lab tells (daemons.jsonl), or a journal's segments. With --log, "
        "packets that the kernel has dropped and logged are joined to them. 0: there are none; 1: there are some.",
    )
    parser.add_argument(
        "place",
        metavar="DIR|FILE",
        type=Path,
        help="an EVE file, a journal's segment, or a directory with some below it",
    )
    parser.add_argument("--log", metavar="FILE", type=Path, help="the kernel's log (journalctl -k)")
    parser.add_argument("--flow", metavar="ID", help="only alerts about this flow")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    try:
        alerts = [alert for path in sources(args.place) for alert in read_alerts(path)]
        drops = list(read_drops(args.log)) if args.log is not None else []
    except (AlertsError, OSError) as refused:
        print(f"netpolicy: {refused}", file=sys.stderr)
        return _BAD_INPUT
    rows = summarise((alert for alert in alerts if args.flow in {None, alert.flow}), drops)
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False))
    else:
        _print(rows, joined=args.log is not None)
    return _FOUND if rows else _HOLDS


def _print(rows: list[Row], *, joined: bool) -> None:
    if not rows:
        print("no alerts")
        return
    head = ["alerts", "blocked", "firewall", "flow", "signature", "sid", "technique", *(["kernel"] if joined else [])]
    lines = [head, *(_cells(row, joined=joined) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print(f"{sum(row.alerts for row in rows)} alerts of {len(rows)} signatures, {rows[0].first} and on")


def _cells(row: Row, *, joined: bool) -> list[str]:
    cells = [
        str(row.alerts),
        str(row.blocked),
        row.firewall,
        row.flow or "-",
        row.signature,
        str(row.sid),
        row.technique,
    ]
    if joined:
        cells.append(", ".join(f"{reason} {count}" for reason, count in row.dropped) or "-")
    return cells
