"""``netpolicy conform``: packets, endpoints, evidence."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from difflib import get_close_matches
from pathlib import Path

from netpolicy.build.tree import refuse_foreign
from netpolicy.topology.load import load_topology

_BAD_INPUT, _MACHINE_LACKS = 2, 3


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "conform",
        help="prove with packets that the firewalls do what the topology says",
        description="Run the firewalls of TOPOLOGY in a lab, send them what must pass and what must not, and compare. "
        "Exit code 0 only if every verdict matches and nothing was skipped. Needs root.",
    )
    parser.add_argument("topology", metavar="TOPOLOGY", type=Path)
    parser.add_argument("--build", metavar="DIR", type=Path, help="run these files (default: compile TOPOLOGY)")
    parser.add_argument("--report", metavar="DIR", type=Path, help="write conformance.json, junit.xml and captures")
    parser.add_argument("--firewall", metavar="ID", action="append", help="probe only this one; may be repeated")
    parser.add_argument("--stage", metavar="NAME", action="append", help="run only this stage; may be repeated")
    parser.add_argument(
        "--witnesses",
        action="store_true",
        help="run the stage 'witness': send each firewall the packets at the edges of its own ruleset, and compare its "
        "kernel with the model that proofs rest on; alone, or beside the stages named",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    loaded = load_topology(args.topology)
    for warning in loaded.warnings:
        print(warning, file=sys.stderr)
    topology = loaded.topology

    from conformance.inspection import STAGE as INSPECT
    from conformance.lab import LabError
    from conformance.lab.preflight import CLIENTS, ENGINES, missing, unneeded
    from conformance.lab.rooted import Root, compile_for
    from conformance.report import print_report, write_report
    from conformance.report.files import JSON, document
    from conformance.run import ALL_STAGES, conform
    from conformance.witness import STAGE as WITNESS

    stages = [*(args.stage or ()), WITNESS] if args.witnesses else args.stage
    if not (_known("firewall", args.firewall, list(topology.firewalls)) and _known("stage", stages, list(ALL_STAGES))):
        return _BAD_INPUT
    if args.report is not None:
        refuse_foreign(args.report, JSON)  # a run of minutes must not be lost at its end
    needless = {CLIENTS} if stages is None or INSPECT in stages else {CLIENTS, ENGINES}
    lacking = [each for each in missing() if each.needed_for not in needless | unneeded(topology)]
    if lacking:
        print(*(f"netpolicy: this machine lacks {each}" for each in lacking), sep="\n", file=sys.stderr)
        return _MACHINE_LACKS

    from rich.console import Console

    with ExitStack() as stack:
        build = args.build
        errors = Console(stderr=True)
        status = stack.enter_context(errors.status("")) if errors.is_terminal else None
        try:
            if build is None:
                build = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="netpolicy-"))) / "build"
                compile_for(Root.find(), topology, build)
            summary = conform(
                topology,
                build,
                firewalls=args.firewall,
                stages=stages,
                progress=status.update if status else lambda _line: None,
            )
        except LabError as refused:
            print(f"netpolicy: {refused}", file=sys.stderr)
            return _BAD_INPUT
    if args.report is not None:
        write_report(summary, args.report)
    if args.json:
        print(json.dumps(document(summary), ensure_ascii=False, indent=1))
    else:
        width = None if sys.stdout.isatty() else 140
        print_report(summary, Console(highlight=False, width=width))
        if args.report is not None:
            print(f"report: {args.report}")
    return summary.exit_code


def _known(what: str, given: list[str] | None, valid: list[str]) -> bool:
    """Tell whether all names given exist; say which does not."""
    for name in given or ():
        if name not in valid:
            near = get_close_matches(name, valid, 1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; one of {', '.join(valid)}"
            print(f"netpolicy: there is no {what} '{name}'{hint}", file=sys.stderr)
            return False
    return True
