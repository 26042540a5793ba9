"""``python3 -I -m appliance_image.agent``: the commands of an appliance."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from appliance_image.agent import commands, stages
from appliance_image.agent.console import say
from appliance_image.agent.errors import AgentError
from appliance_image.agent.output import rotate
from appliance_image.agent.root import Root
from appliance_image.agent.watch import watch


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    result = argparse.ArgumentParser(
        prog="netpolicy",
        description="The agent of an appliance.",
        epilog="Exit codes: 0 holds; 1 does not hold; 2 the input or the call is wrong; 3 the machine lacks something.",
    )
    commands.add_places(result)
    found = result.add_subparsers(metavar="COMMAND", required=True)
    for name, command in commands.COMMANDS.items():
        each = found.add_parser(name, help=command.help, description=command.description, epilog=command.epilog)
        command.arguments(each)
        each.set_defaults(run=command.run)
    boot = found.add_parser("boot", help="go through a stage of the boot; called by the service manager")
    boot.add_argument("stage", choices=[*stages.STAGES, "stop-forwarding"])
    boot.set_defaults(run=_boot)
    for name, run, text in (
        ("expire", _expire, "end a trial whose time is over; called by the service manager"),
        ("give-way", _give_way, "start again if an image on trial does not enforce; called by the service manager"),
        ("clock", _clock, "close if the clock was set; called by the service manager"),
        ("revive", _revive, "begin again what has ended, and forward; called by the service manager"),
        ("rotate", _rotate, "have engines begin long files anew; called by the service manager"),
        ("watch", _watch, "try to boot again when devices come; called by the service manager"),
    ):
        found.add_parser(name, help=text).set_defaults(run=run)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = parser().parse_args(argv)
    root = commands.root_of(args)
    if not root.inventory.exists():
        # A slip on a workstation must not close that one. On an appliance, what its initrd has closed stays closed.
        say(root, "agent", f"this machine is no appliance: it has no {root.inventory}", closed=True)
        return commands.MACHINE_LACKS
    code: int = args.run(root, args)
    return code


def _boot(root: Root, args: argparse.Namespace) -> int:
    if args.stage == "stop-forwarding":
        stages.stop_forwarding(root, "stopped")
        return commands.HOLDS
    return commands.HOLDS if stages.boot(root, args.stage) else commands.FINDING


def _expire(root: Root, _args: argparse.Namespace) -> int:
    from appliance_image.agent.operate import expire  # noqa: PLC0415 - the proof, which a boot does not wait for

    try:
        if expire(root):
            say(root, "rollback", "not confirmed in time: the bundle before runs again")
    except AgentError as failed:
        say(root, "rollback", f"{failed.code}: {failed}", closed=True)
        return commands.FINDING
    return commands.HOLDS


def _give_way(root: Root, _args: argparse.Namespace) -> int:
    from appliance_image.agent.giveway import give_way  # noqa: PLC0415 - the disk, which a boot does not wait for

    try:
        give_way(root)
    except AgentError as failed:
        # The machine is not started again for that: it may be the only image.
        print(f"netpolicy: {failed}", file=sys.stderr)
    return commands.HOLDS


def _clock(root: Root, _args: argparse.Namespace) -> int:
    from appliance_image.agent.clock import look  # noqa: PLC0415 - not what a boot waits for

    look(root)
    return commands.HOLDS


def _revive(root: Root, _args: argparse.Namespace) -> int:
    from appliance_image.agent.revive import revive  # noqa: PLC0415 - what a boot does not need

    try:
        revive(root)
    except AgentError as failed:
        say(root, "revive", f"{failed.code}: {failed}", closed=True)
        return commands.FINDING
    return commands.HOLDS


def _rotate(root: Root, _args: argparse.Namespace) -> int:
    try:
        rotate(root)
    except AgentError as failed:
        print(f"netpolicy: {failed}", file=sys.stderr)
        return commands.FINDING
    return commands.HOLDS


def _watch(root: Root, _args: argparse.Namespace) -> int:
    watch(root)
    return commands.HOLDS


if __name__ == "__main__":
    sys.exit(main())
