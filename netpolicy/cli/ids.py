"""``netpolicy ids``: the signatures by themselves."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from netpolicy.build import compile_topology
from netpolicy.intent.derive import derive_intents
from netpolicy.topology.load import load_topology

if TYPE_CHECKING:
    from conformance.replay import Row

_HOLDS, _FINDING, _BAD_INPUT, _MACHINE_LACKS = 0, 1, 2, 3


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "ids", help="try the signatures on captures", description="Work with the signatures of the inline engines."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    replay = commands.add_parser(
        "replay",
        help="recognise forbidden protocols in captures",
        description="Run an inline engine over every capture (pcap, pcapng, cap) of FOLDER and print which forbidden "
        "protocols it recognises, on which port. A protocol that a file is called after (smtp-auth.pcap) is expected "
        "in it: 0 if all that is expected was seen, 1 if not. Needs root, and the root of the inline engine.",
    )
    replay.add_argument("folder", metavar="FOLDER", type=Path)
    replay.add_argument(
        "--topology", metavar="FILE", type=Path, default=Path("topology.yaml"), help="default: %(default)s"
    )
    replay.add_argument("--json", action="store_true", help="print the rows as JSON")
    replay.set_defaults(run=run_replay)


def run_replay(args: argparse.Namespace) -> int:
    """Run the command."""
    from conformance.lab import LabError
    from conformance.lab.rooted import Root
    from conformance.replay import replay_folder

    topology = load_topology(args.topology).topology
    root = Root.find()
    if root is None:
        print("netpolicy: there is no root of the inline engine: make setup", file=sys.stderr)
        return _MACHINE_LACKS
    # Forbidden protocols are forbidden everywhere alike.
    intent = next(iter(derive_intents(topology).values()))
    with tempfile.TemporaryDirectory(prefix="netpolicy-") as directory:
        compile_topology(topology, Path(directory) / "build")
        configuration = Path(directory) / "build" / intent.id / "suricata"
        try:
            rows = list(replay_folder(root, configuration, intent.engines[0], args.folder))
        except LabError as refused:
            print(f"netpolicy: {refused}", file=sys.stderr)
            return _BAD_INPUT
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False))
    else:
        _print(rows)
    return _FINDING if any(row.expected and not row.seen for row in rows) else _HOLDS


def _print(rows: list[Row]) -> None:
    lines = [["capture", "protocol", "port", "expected", "seen"]]
    for row in rows:
        port = "-" if row.port is None else str(row.port)
        lines.append([row.capture, row.protocol, port, "yes" if row.expected else "-", str(row.seen)])
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    wanted = [row for row in rows if row.expected]
    captures = len({row.capture for row in rows})
    found = sum(row.seen > 0 for row in wanted)
    print(f"{captures} captures with something in them; {found} of {len(wanted)} expected seen")
