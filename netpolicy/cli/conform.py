"""``netpolicy conform``: packets, endpoints, evidence."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from netpolicy.build.tree import refuse_foreign
from netpolicy.cli._journalled import Recorded, add_journal, journalled
from netpolicy.cli._terminal import console
from netpolicy.cli._topology import add_topology
from netpolicy.cli._vm import add_places, parts_of
from netpolicy.cli._vm import lacking as lacking_for_machines
from netpolicy.topology.load import load_topology
from netpolicy.topology.model import Topology

if TYPE_CHECKING:
    from conformance.run import Summary

_FINDING, _BAD_INPUT, _MACHINE_LACKS = 1, 2, 3


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "conform",
        help="prove with packets that the firewalls do what the topology says",
        description="Run the firewalls of TOPOLOGY in a lab, send them what must pass and what must not, and compare. "
        "Exit code 0 only if every verdict matches and nothing was skipped. Needs root.",
    )
    add_topology(parser)
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
    parser.add_argument(
        "--vm",
        metavar="ID",
        help="run this firewall as a virtual machine that boots a test image, and probe it alone from outside; what "
        "takes a look inside is left out, and listed",
    )
    add_places(parser)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    add_journal(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return journalled(args, "rehearsal", _conform)


def _conform(args: argparse.Namespace, recorded: Recorded) -> int:
    loaded = load_topology(args.topology)
    for warning in loaded.warnings:
        print(warning, file=sys.stderr)
    topology = loaded.topology
    recorded["topology_sha256"] = topology.digest

    from conformance.report import print_report, write_report
    from conformance.report.files import JSON, document

    code = _refusal(args, topology)
    if code is not None:
        return code
    if args.report is not None:
        refuse_foreign(args.report, JSON)  # a run of minutes must not be lost at its end

    found = _run(args, topology)
    if isinstance(found, int):
        return found
    recorded["stages"], recorded["firewalls"] = list(found.stages), list(found.firewalls)
    if args.report is not None:
        write_report(found, args.report)
    if args.json:
        print(json.dumps(document(found), ensure_ascii=False, indent=1))
    else:
        print_report(found, console(140))
        if args.report is not None:
            print(f"report: {args.report}")
    return found.exit_code


def _stages(args: argparse.Namespace) -> list[str] | None:
    from conformance.witness import STAGE as WITNESS

    stages: list[str] | None = [*(args.stage or ()), WITNESS] if args.witnesses else args.stage
    return stages


def _refusal(args: argparse.Namespace, topology: Topology) -> int | None:
    """Say what is wrong with the call, or what the machine lacks, and return the exit code; None if all is well."""
    from conformance.elsewhere import STAGES as FROM_OUTSIDE
    from conformance.inspection import STAGE as INSPECT
    from conformance.lab.preflight import CLIENTS, ENGINES, missing, unneeded
    from conformance.run import ALL_STAGES

    stages = _stages(args)
    named = [*(args.firewall or ()), *([args.vm] if args.vm else [])]
    valid = list(FROM_OUTSIDE if args.vm else ALL_STAGES)
    if not (_known("firewall", named, list(topology.firewalls)) and _known("stage", stages, valid)):
        return _BAD_INPUT
    if args.vm and args.firewall:
        print("netpolicy: --vm names the one firewall that is probed; --firewall is not for it", file=sys.stderr)
        return _BAD_INPUT
    if args.vm:
        return lacking_for_machines(topology)
    needless = {CLIENTS} if stages is None or INSPECT in stages else {CLIENTS, ENGINES}
    lacking = [each for each in missing() if each.needed_for not in needless | unneeded(topology)]
    for each in lacking:
        print(f"netpolicy: this machine lacks {each}", file=sys.stderr)
    return _MACHINE_LACKS if lacking else None


def _run(args: argparse.Namespace, topology: Topology) -> Summary | int:
    """Run it, and return what was found; or say why it cannot be run, and return the exit code."""
    from rich.console import Console
    from rich.text import Text

    from appliance_image.vm.boot import Booted, switch_on
    from appliance_image.vm.errors import ClosedError, MachineError
    from conformance.elsewhere import conform_elsewhere
    from conformance.lab import LabError
    from conformance.lab.rooted import Root, compile_for
    from conformance.run import conform

    stages = _stages(args)
    with ExitStack() as stack:
        errors = Console(stderr=True)
        status = stack.enter_context(errors.status("")) if errors.is_terminal else None

        def progress(line: str) -> None:
            if status:
                status.update(Text(line))  # a string would be taken for markup

        build = args.build
        try:
            if build is None:
                build = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="netpolicy-"))) / "build"
                compile_for(Root.find(), topology, build)
            if not args.vm:
                return conform(topology, build, firewalls=args.firewall, stages=stages, progress=progress)
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="netpolicy-vm-")))
            parts = parts_of(args, topology, work, hear=lambda event: progress(str(event)))
            power_on = switch_on(parts, Booted(args.vm), flood=False)
            return conform_elsewhere(topology, build, args.vm, power_on, stages=stages, progress=progress)
        except ClosedError as closed:
            print(f"netpolicy: {args.vm}: {closed}", file=sys.stderr)
            return _FINDING
        except (LabError, MachineError) as refused:
            print(f"netpolicy: {refused}", file=sys.stderr)
            return _BAD_INPUT


def _known(what: str, given: list[str] | None, valid: list[str]) -> bool:
    """Tell whether all names given exist; say which does not."""
    for name in given or ():
        if name not in valid:
            near = get_close_matches(name, valid, 1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; one of {', '.join(valid)}"
            print(f"netpolicy: there is no {what} '{name}'{hint}", file=sys.stderr)
            return False
    return True
