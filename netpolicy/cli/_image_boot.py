"""``netpolicy image boot``: the image in a virtual machine, in the place of one firewall of a lab."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netpolicy.cli._topology import TOPOLOGY
from netpolicy.cli._vm import add_places, lacking, parts_of
from netpolicy.topology.load import load_topology
from netpolicy.topology.model import Topology

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from appliance_image.vm.boot import Booted
    from appliance_image.vm.console import Event
    from conformance.run import Summary

_HOLDS, _FINDING, _BAD_INPUT, _MACHINE_LACKS = 0, 1, 2, 3
_MOST_JOBS = 64


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the action."""
    parser = subparsers.add_parser(
        "boot",
        help="boot an image in the place of a firewall of a lab",
        description="Boot a test image in QEMU, under Secure Boot and with a TPM, its network cards in the place of "
        "FIREWALL in a lab of namespaces, with a bundle signed by trial operators. From before power-on all its "
        "interfaces are flooded with forbidden packets, of which none may pass; then what is permitted must. Needs "
        "root. Uses KVM where that works, else emulation, which takes minutes.",
    )
    parser.add_argument("firewall", metavar="FIREWALL", nargs="?")
    parser.add_argument(
        "--all",
        action="store_true",
        help="boot the image once, save it, and let it become each firewall in turn, with cards that lead nowhere: do "
        "all bundles boot, and in how many seconds",
    )
    parser.add_argument("--jobs", metavar="N", type=_jobs, default=1,
                        help="with --all: machines at the same time (1 GiB each; default: %(default)s)")  # fmt: skip
    parser.add_argument("--topology", metavar="TOPOLOGY", type=Path, default=TOPOLOGY,
                        help="default: %(default)s")  # fmt: skip
    parser.add_argument("--build", metavar="DIR", type=Path, help="run these files; default: compile TOPOLOGY")
    add_places(parser)
    parser.add_argument("--no-flood", action="store_true", help="switch it on in silence")
    parser.add_argument("--console", metavar="FILE", type=Path, help="write all that the serial console says")
    parser.add_argument("--json", action="store_true", help="print stages, times and counts as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    topology = load_topology(args.topology).topology
    if args.all == (args.firewall is not None):
        print("netpolicy: image boot: expected FIREWALL, or --all", file=sys.stderr)
        return _BAD_INPUT
    if args.all:
        return _run_all(args, topology)
    if args.firewall not in topology.firewalls:
        print(f"netpolicy: there is no firewall '{args.firewall}'; one of {', '.join(topology.firewalls)}",
              file=sys.stderr)  # fmt: skip
        return _BAD_INPUT

    from appliance_image.vm.boot import Booted, switch_on
    from appliance_image.vm.errors import MachineError
    from conformance.elsewhere import conform_elsewhere
    from conformance.exchange import STAGE as EXCHANGE
    from conformance.lab import LabError
    from conformance.lab.rooted import Root, compile_for

    if (code := lacking(topology)) is not None:
        return code
    report = Booted(args.firewall)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="netpolicy-boot-")))
        try:
            tell: Callable[[object], None] = (lambda _said: None) if args.json else partial(print, flush=True)
            parts = parts_of(args, topology, work, hear=tell)
            build = args.build
            if build is None:
                build = work / "compiled"
                compile_for(Root.find(), topology, build)
            power_on = switch_on(parts, report, flood=not args.no_flood, progress=tell)
            summary = conform_elsewhere(topology, build, args.firewall, power_on, stages=[EXCHANGE])
        except (LabError, MachineError) as refused:
            print(f"netpolicy: {refused}", file=sys.stderr)
            if args.json:
                print(json.dumps(_document(report, None), ensure_ascii=False, indent=1))
            return _FINDING if report.events else _BAD_INPUT
        finally:
            log = work / "machine/console.log"
            if args.console is not None and log.is_file():
                args.console.write_bytes(log.read_bytes())
    holds = summary.exit_code == 0 and (args.no_flood or report.closed_while_flooded)
    if args.json:
        print(json.dumps(_document(report, summary), ensure_ascii=False, indent=1))
    else:
        _print(report, summary)
        print("holds" if holds else "does not hold")
    return _HOLDS if holds else _FINDING


def _run_all(args: argparse.Namespace, topology: Topology) -> int:
    """Boot every firewall from one saved guest."""
    from appliance_image.vm.errors import MachineError
    from appliance_image.vm.every import Became, boot_every
    from conformance.lab import LabError
    from conformance.lab.rooted import Root, compile_for

    if (code := lacking(topology)) is not None:
        return code
    found: list[Became] = []
    with tempfile.TemporaryDirectory(prefix="netpolicy-boot-") as directory:
        try:
            parts = parts_of(args, topology, Path(directory), hear=None)
            build = args.build
            if build is None:
                build = Path(directory) / "compiled"
                compile_for(Root.find(), topology, build)
            for each in boot_every(parts, topology, build, topology.firewalls, args.jobs):
                if isinstance(each, Became):
                    found.append(each)
                    if not args.json:
                        print(f"{each.firewall:28} {each.seconds:6.1f} s  {each.failure or 'enforcing'}", flush=True)
                elif not args.json:
                    print(f"{'saved, closed':28} {each.seconds:6.1f} s after power-on", flush=True)
        except (LabError, MachineError) as refused:
            print(f"netpolicy: {refused}", file=sys.stderr)
            return _BAD_INPUT
    closed = [each for each in found if each.failure]
    if args.json:
        plain = [
            {
                "firewall": each.firewall,
                "seconds": round(each.seconds, 1),
                "failure": each.failure,
                "stages": _stages(each.events),
            }
            for each in found
        ]
        print(json.dumps(plain, ensure_ascii=False, indent=1))
    else:
        mean = sum(each.seconds for each in found) / len(found)
        print(f"{len(found) - len(closed)} of {len(found)} firewalls enforce, {mean:.1f} s each")
    return _FINDING if closed else _HOLDS


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_JOBS:
        raise argparse.ArgumentTypeError(f"expected a number of machines, 1 to {_MOST_JOBS}, not '{text}'")
    return int(text)


def _stages(events: Iterable[Event]) -> list[dict[str, Any]]:
    return [
        {"stage": each.stage, "ok": each.ok, "text": each.text, "seconds": round(each.seconds, 1)} for each in events
    ]


def _document(report: Booted, summary: Summary | None) -> dict[str, Any]:
    from conformance.outcome import Status

    found: dict[str, Any] = {
        "firewall": report.firewall,
        "accelerator": report.accelerator,
        "stages": _stages(report.events),
    }
    if report.before is not None and report.after is not None:
        found["flood"] = {
            interface: {
                "sent": report.after.sent[interface],
                "sent_before_power_on": report.before.sent[interface],
                "taken": report.after.taken[interface].taken,
                "taken_while_closed": when.taken if (when := report.after.taken_when_opened.get(interface)) else None,
                "passed": sum(each == interface for each, _ in report.after.passed),
            }
            for interface in report.after.sent
        }
        found["seconds_to_first_permitted"] = round(report.opened, 1) if report.opened is not None else None
    if summary is not None:
        found["exchanges"] = {status.value: summary.results.count(status) for status in Status}
    return found


def _print(report: Booted, summary: Summary) -> None:
    from conformance.outcome import Status

    if report.before is not None and report.after is not None:
        print(f"\nflood from {sum(report.before.sent.values())} packets before power-on:")
        for interface, count in report.after.sent.items():
            when = report.after.taken_when_opened.get(interface)
            closed = when.taken if when else report.after.taken[interface].taken
            out = sum(each == interface for each, _ in report.after.passed)
            print(f"  {interface}: {count} sent, {report.after.taken[interface].taken} taken by the network card, "
                  f"{closed} of them before it was open; came out: {out}")  # fmt: skip
        if report.opened is not None:
            print(f"first permitted connection through: {report.opened:.1f} s after power-on ({report.accelerator})")
    passed = summary.results.count(Status.PASS)
    print(f"exchanges and refusals across it: {passed} as the topology demands, {len(summary.results.outcomes)} not")
    for outcome in summary.results.outcomes[:10]:
        print(f"  {outcome.source} → {outcome.destination}, {outcome.probe}: {outcome.observed}")
