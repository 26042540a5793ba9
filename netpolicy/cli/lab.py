"""``netpolicy lab``: a living network to touch with real clients."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from netpolicy.cli._topology import add_topology, day
from netpolicy.topology.load import load_topology
from netpolicy.topology.model import Topology

if TYPE_CHECKING:
    from conformance.lab.state import LabState

_BAD_INPUT, _MACHINE_LACKS = 2, 3


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "lab",
        help="keep a living network of namespaces to touch with real clients",
        description="Every node and firewall as a network namespace of this machine, the firewalls running the files "
        "of a build. Needs root. Nothing of it leaves the machine; all of it is gone after 'lab down'.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    up = actions.add_parser("up", help="bring a lab up and keep it", description="Bring the lab of TOPOLOGY up.")
    add_topology(up)
    up.add_argument("--build", metavar="DIR", type=Path, help="run the files of this build; default: compile anew")
    up.add_argument("--as-of", metavar="DATE", type=day, help="judge on this day (YYYY-MM-DD)")
    up.add_argument("--foreground", action="store_true", help="stay, and end the lab with Ctrl-C or SIGTERM")
    up.add_argument("--json", action="store_true", help="print what is up as JSON")
    up.set_defaults(run=run_up)

    execute = actions.add_parser(
        "exec",
        help="run a command in a node or firewall",
        description="Run ARGV in NODE with this terminal, and end with its exit code. Node names resolve.",
    )
    execute.add_argument("--name", metavar="NAME", help="of the lab: its topology's id; default: the one that runs")
    execute.add_argument("node", metavar="NODE", help="id of a node or firewall")
    execute.add_argument("argv", metavar="-- ARGV", nargs=argparse.REMAINDER, help="the command")
    execute.set_defaults(run=run_exec)

    status = actions.add_parser(
        "status",
        help="tell which engines and relays of a lab run",
        description="Tell what became of engines and relays that have ended since the lab came up. Exit code 0: all "
        "run.",
    )
    status.add_argument("--name", metavar="NAME", help="of the lab: its topology's id; default: the one that runs")
    status.add_argument("--json", action="store_true", help="print it as JSON")
    status.set_defaults(run=run_status)

    listed = actions.add_parser(
        "list", help="tell which labs are up", description="List the labs of this machine that are up."
    )
    listed.add_argument("--json", action="store_true", help="print them as JSON")
    listed.set_defaults(run=run_list)

    down = actions.add_parser("down", help="end a lab", description="End a lab and wait until all of it is gone.")
    down.add_argument("--name", metavar="NAME", help="of the lab: its topology's id; default: the one that runs")
    down.add_argument("--json", action="store_true", help="print what was ended as JSON")
    down.set_defaults(run=run_down)


def run_up(args: argparse.Namespace) -> int:
    """Bring a lab up."""
    topology = load_topology(args.topology, as_of=args.as_of).topology

    from conformance.lab.preflight import LAB, RELAYS, missing, unneeded

    found = missing()
    for each in found:
        if each.needed_for in {RELAYS} - unneeded(topology):
            print(f"netpolicy: warning: this machine lacks {each}", file=sys.stderr)
    lacking = [each for each in found if each.needed_for == LAB]
    if lacking:
        print(*(f"netpolicy: this machine lacks {each}" for each in lacking), sep="\n", file=sys.stderr)
        return _MACHINE_LACKS

    from conformance.application.attend import attend
    from conformance.lab import LabError, holder

    def report(state: LabState) -> None:
        if args.json:
            print(json.dumps(_summary(topology, state), indent=2, ensure_ascii=False), flush=True)
        else:
            _print_table(topology, state)

    build = args.build and args.build.absolute()  # the lab's process leaves this directory
    try:
        if args.foreground:
            holder.hold(topology, build, report, attend)
        else:
            report(holder.start(topology, build, attend))
    except LabError as refused:
        print(f"netpolicy: {refused}", file=sys.stderr)
        return _BAD_INPUT
    return 0


def run_exec(args: argparse.Namespace) -> int:
    """Run a command in a node or firewall."""
    if not _may("exec"):
        return _MACHINE_LACKS
    argv = args.argv[1:] if args.argv[:1] == ["--"] else args.argv
    if not argv:
        print("netpolicy: lab exec NODE -- ARGV: the command is missing", file=sys.stderr)
        return _BAD_INPUT

    from conformance.lab import LabError
    from conformance.lab.enter import CommandError, execute
    from conformance.lab.state import choose

    try:
        return execute(choose(args.name), args.node, argv)
    except CommandError as refused:
        print(f"netpolicy: {refused}", file=sys.stderr)
        return refused.code
    except LabError as refused:
        print(f"netpolicy: {refused}", file=sys.stderr)
        return _BAD_INPUT


def run_status(args: argparse.Namespace) -> int:
    """Tell which engines and relays run."""
    if not _may("status"):
        return _MACHINE_LACKS

    from conformance.lab import LabError
    from conformance.lab.state import ROOT, choose
    from conformance.lab.supervise import EVENTS, standing

    try:
        state = choose(args.name)
    except LabError as refused:
        print(f"netpolicy: {refused}", file=sys.stderr)
        return _BAD_INPUT
    told = standing(ROOT / state.name / EVENTS)
    every = {name: told.get(name, "runs") for name in (*state.engines, *state.relays)}
    if args.json:
        print(json.dumps(every, indent=2))
    else:
        print(*(f"{name}: {how}" for name, how in every.items()), sep="\n")
    return 0 if all(how == "runs" or how.startswith("back") for how in every.values()) else 1


def run_list(args: argparse.Namespace) -> int:
    """Tell which labs are up."""
    if not _may("list"):
        return _MACHINE_LACKS

    from conformance.lab.state import running

    labs = running()
    if args.json:
        print(json.dumps({name: {"pid": lab.holder.pid, "build": lab.build} for name, lab in labs.items()}, indent=2))
    else:
        lines = [f"{name}: process {lab.holder.pid}, {lab.build}" for name, lab in labs.items()]
        print(*(lines or ["no lab is up"]), sep="\n")
    return 0


def run_down(args: argparse.Namespace) -> int:
    """End a lab."""
    if not _may("down"):
        return _MACHINE_LACKS

    from conformance.lab import LabError, holder
    from conformance.lab.state import choose, remove_leftovers

    leftovers = remove_leftovers()
    try:
        state = choose(args.name)
        holder.stop(state)
    except LabError as refused:
        print(f"netpolicy: {refused}", file=sys.stderr)
        return _BAD_INPUT
    if args.json:
        print(json.dumps({"ended": state.name, "leftovers_removed": leftovers}))
    else:
        print(f"lab '{state.name}' is gone")
    return 0


def _may(action: str) -> bool:
    """Tell whether labs may be seen: they are root's; say so if not."""
    if os.geteuid() == 0:
        return True
    print(f"netpolicy: lab {action} needs root", file=sys.stderr)
    return False


def _summary(topology: Topology, state: LabState) -> dict[str, object]:
    return {
        "name": state.name,
        "pid": state.holder.pid,
        "build": state.build,
        "engines": state.engines,
        "relays": state.relays,
        "nodes": {
            node.id: {
                "role": node.role,
                "site": node.site,
                "addresses": [str(address) for address in node.interface.addresses],
            }
            for node in topology.nodes.values()
        },
        "firewalls": {
            firewall.id: {
                interface.name: [str(address) for address in interface.addresses] for interface in firewall.interfaces
            }
            for firewall in topology.firewalls.values()
        },
    }


def _print_table(topology: Topology, state: LabState) -> None:
    from rich.table import Table

    from conformance.lab.state import running
    from netpolicy.cli._terminal import console

    table = Table(title=str(topology.title), title_justify="left", box=None, pad_edge=False)
    for heading in ("NODE", "ROLE", "TITLE", "ADDRESSES"):
        table.add_column(heading, no_wrap=heading != "TITLE")
    for node in topology.nodes.values():
        table.add_row(node.id, node.role, str(node.title), " ".join(map(str, node.interface.addresses)))
    for firewall in topology.firewalls.values():
        names = " ".join(interface.name for interface in firewall.interfaces)
        table.add_row(firewall.id, "firewall", str(firewall.title), names)
    console(160).print(table)
    some_node = next(iter(topology.nodes), "NODE")
    some_firewall = next(iter(topology.firewalls), "FIREWALL")
    parts = f"{len(state.engines)} inline engines and {len(state.relays)} relays"
    if not state.engines:
        parts = "NO inline engines and NO relays (make setup)"
    which = f" --name {state.name}" if len(running()) > 1 else ""
    print(
        f"\nlab '{state.name}' is up, with {parts}, and the files of {state.build}\n"
        f"  netpolicy lab exec{which} {some_node} -- bash\n"
        f"  netpolicy lab exec{which} {some_firewall} -- nft list counters\n"
        f"  netpolicy lab down{which}",
        flush=True,
    )
