"""``netpolicy compile``: write the artefacts of every firewall."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import date
from pathlib import Path

from netpolicy.build import compile_topology
from netpolicy.intent.check import check_topology


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "compile",
        help="write the artefacts of every firewall",
        description="Compile TOPOLOGY to one directory for each firewall and a manifest. "
        "Needs neither root nor nftables. The same input gives the same bytes; a failure leaves the previous build.",
    )
    parser.add_argument("topology", metavar="TOPOLOGY", type=Path)
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("build"), help="default: %(default)s")
    parser.add_argument("--as-of", metavar="DATE", type=date.fromisoformat, help="judge on this day (YYYY-MM-DD)")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    checked = check_topology(args.topology, as_of=args.as_of)
    for warning in checked.warnings:
        print(warning, file=sys.stderr)
    compile_topology(checked.topology, args.out)
    firewalls = list(checked.topology.firewalls)
    if args.json:
        print(json.dumps({"out": str(args.out), "firewalls": firewalls, "warnings": len(checked.warnings)}, indent=2))
    else:
        print(f"{args.out}: {len(firewalls)} firewalls of network {checked.topology.id}")
    return 0
