"""``netpolicy check``: errors and warnings, with places."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from netpolicy.cli._topology import add_topology, day
from netpolicy.diagnostics import Diagnostic, InputError
from netpolicy.intent.check import check_topology
from netpolicy.topology.source import MAX_BYTES

_COUNTED = ("sites", "segments", "nodes", "firewalls", "flows")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "check",
        help="tell what is wrong with a topology",
        description="Read TOPOLOGY and its tables, and print every error and warning with file, line and column. "
        "Exit code 2 if there is an error; warnings do not change it.",
    )
    add_topology(parser, "'-' reads standard input, and tables from this directory; ")
    parser.add_argument("--as-of", metavar="DATE", type=day, help="judge on this day (YYYY-MM-DD)")
    parser.add_argument("--json", action="store_true", help="print errors and warnings as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    content = sys.stdin.buffer.read(MAX_BYTES + 1) if args.topology == Path("-") else None
    try:
        checked = check_topology(args.topology, as_of=args.as_of, content=content)
    except InputError as refused:
        if not args.json:
            raise
        print(json.dumps({"valid": False, "diagnostics": list(map(_plain, refused.diagnostics))}, indent=2))
        return 2
    topology = checked.topology
    unconfirmed = [flow.id for flow in topology.flows.values() if not flow.basis.confirmed]
    if args.json:
        counts = {name: len(getattr(topology, name)) for name in _COUNTED}
        found = {"valid": True, "network": topology.id, **counts, "bases_to_be_confirmed": unconfirmed}
        print(json.dumps({**found, "diagnostics": list(map(_plain, checked.warnings))}, indent=2))
        return 0
    for warning in checked.warnings:
        print(warning, file=sys.stderr)
    print(f"{args.topology}: valid. {topology.title}, as of {topology.as_of}")
    print("  " + ", ".join(f"{len(getattr(topology, name))} {name}" for name in _COUNTED))
    if unconfirmed:
        print(f"  legal basis to be confirmed: {', '.join(unconfirmed)}")
    return 0


def _plain(found: Diagnostic) -> dict[str, object]:
    return asdict(found)
