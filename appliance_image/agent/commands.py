"""``apply``, ``confirm``, ``rollback``, ``drift`` and ``status``: their arguments, and what they print.

Both ``netpolicy``, where the toolkit is, and ``python3 -m appliance_image.agent``, on an appliance, have them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from appliance_image.agent.errors import AgentError
from appliance_image.agent.root import Root

if TYPE_CHECKING:
    from appliance_image.agent.operate import Done
    from appliance_image.agent.update import Updated
    from appliance_image.agent.validity import Validity

    _Change = TypeVar("_Change", Done, Updated, Validity)

HOLDS, FINDING, BAD_INPUT, MACHINE_LACKS = 0, 1, 2, 3
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|m)?")
_LACKS = frozenset({"state", "not-verified", "missing-program"})


@dataclass(frozen=True, slots=True)
class Command:
    """One command."""

    help: str
    description: str
    epilog: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Root, argparse.Namespace], int]


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser], name: str) -> None:
    """Add a command to those of the toolkit, with the places among its own options."""
    command = COMMANDS[name]
    parser = subparsers.add_parser(
        name,
        help=command.help,
        description=f"{command.description} It is a command of an appliance.",
        epilog=command.epilog,
    )
    command.arguments(parser)
    add_places(parser)

    def run(args: argparse.Namespace) -> int:
        root = root_of(args)
        if not root.inventory.exists():
            print(f"netpolicy: this machine is no appliance: it has no {root.inventory}", file=sys.stderr)
            return MACHINE_LACKS
        return command.run(root, args)

    parser.set_defaults(run=run)


def add_places(command: argparse.ArgumentParser) -> None:
    """Add the options that say where everything is, for tests and for the curious."""
    parser = command.add_argument_group("places", "for another place than an appliance")
    parser.add_argument("--state", metavar="DIR", type=Path, help="instead of /state; need not be a partition")
    parser.add_argument("--run-dir", metavar="DIR", type=Path, help="instead of /run/netpolicy")
    parser.add_argument("--share", metavar="DIR", type=Path, help="instead of /usr/share/netpolicy")
    parser.add_argument("--wire", metavar="PREFIX", default=Root().wire, help="of the names of engines' namespaces")
    parser.add_argument("--console", metavar="FILE", type=Path, help="instead of /dev/console")
    parser.add_argument("--units", metavar="DIR", type=Path, help="instead of /run/systemd/system")
    parser.add_argument(
        "--path", metavar="PATH", help="where programs are found; default: %(default)s", default=Root().path
    )


def root_of(args: argparse.Namespace) -> Root:
    """Return where everything is."""
    usual = Root()
    return Root(
        state=args.state or usual.state,
        run=args.run_dir or usual.run,
        share=args.share or usual.share,
        console=args.console or usual.console,
        mounted=args.state is None,
        units=args.units or usual.units,
        path=args.path,
        wire=args.wire,
    )


def seconds(text: str) -> float:
    """Return a duration: ``90``, ``90s``, ``1.5m``.

    Raises:
        argparse.ArgumentTypeError: It is none.

    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"'{text}' is no duration: expected for example 60s or 2m")
    return float(found[1]) * (60 if found[2] == "m" else 1)


def _apply_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", type=Path)
    parser.add_argument(
        "--confirm", metavar="TIME", type=seconds, required=True, help="how long the trial lasts, for example 60s or 2m"
    )
    _json_argument(parser)


def _json_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def _apply(root: Root, args: argparse.Namespace) -> int:
    from appliance_image.agent.operate import apply

    return _operate(args, lambda: apply(root, args.bundle, confirm=args.confirm))


def _confirm(root: Root, args: argparse.Namespace) -> int:
    from appliance_image.agent.operate import confirm

    return _operate(args, lambda: confirm(root))


def _rollback(root: Root, args: argparse.Namespace) -> int:
    from appliance_image.agent.operate import rollback

    return _operate(args, lambda: rollback(root))


def _operate(args: argparse.Namespace, operation: Callable[[], Done]) -> int:
    return _change(args, operation, _done)


def _done(done: Done) -> str:
    lines = [f"{done.operation}: {done.firewall} runs serial {done.serial}, sha256 {done.sha256[:16]}…"]
    lines += [f"  {detail}" for detail in done.details]
    if done.confirm_seconds is not None:
        left = f"{done.confirm_seconds:.0f} s"
        lines.append(f"  on trial: it goes back by itself in {left} unless you say 'netpolicy confirm'")
    return "\n".join(lines)


def _change(args: argparse.Namespace, operation: Callable[[], _Change], text: Callable[[_Change], str]) -> int:
    """Do what changes something, and tell what it came to, or why it did not."""
    try:
        done = operation()
    except AgentError as failed:
        return _tell_failure(args, failed)
    print(json.dumps(asdict(done), ensure_ascii=False, indent=1) if args.json else text(done))
    return HOLDS


def _drift(root: Root, args: argparse.Namespace) -> int:
    from appliance_image.agent.drift import drift

    try:
        found = drift(root)
    except AgentError as failed:
        return _tell_failure(args, failed)
    if args.json:
        print(json.dumps(asdict(found), ensure_ascii=False, indent=1))
    else:
        for line in found.lines():
            print(line)
    return HOLDS if found.none else FINDING


def _status(root: Root, args: argparse.Namespace) -> int:
    from appliance_image.agent.exposure import exposure, sockets
    from appliance_image.agent.status import status

    try:
        found = status(root)
    except AgentError as failed:
        return _tell_failure(args, failed)
    if args.json:
        print(json.dumps({**asdict(found), "exposure": exposure(root)}, ensure_ascii=False, indent=1))
    else:
        listening = (("listens", str(each)) for each in sockets(root))
        for name, value in (*found.rows(), *listening):
            print(f"{name:<14}{value}")
    return HOLDS if found.enforcing else FINDING


def _image_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("update", metavar="FILE", type=Path)
    _json_argument(parser)


def _update(root: Root, args: argparse.Namespace) -> int:
    from appliance_image.agent.update import update

    def text(done: Updated) -> str:
        return f"image {done.version} is in slot {done.slot}; the next boot tries it"

    return _change(args, lambda: update(root, args.update), text)


def _renew_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", type=Path)
    _json_argument(parser)


def _renew(root: Root, args: argparse.Namespace) -> int:
    from appliance_image.agent.renew import offered, renew

    def text(done: Validity) -> str:
        return f"renew: certificate {done.certificate} until {done.certificate_until}; lists until {done.lists_until}"

    return _change(args, lambda: renew(root, offered(args.directory)), text)


def _tell_failure(args: argparse.Namespace, failed: AgentError) -> int:
    if args.json:
        print(json.dumps({"code": failed.code, "error": failed.text}, ensure_ascii=False, indent=1))
    print(f"netpolicy: {failed.code}: {failed.text}", file=sys.stderr)
    return MACHINE_LACKS if failed.code in _LACKS else BAD_INPUT


COMMANDS = {
    "apply": Command(
        "put a bundle on trial on this appliance",
        "Verify BUNDLE, have nft, Suricata and HAProxy check it, switch to it without opening anything on the way, "
        "prove that the kernel's rules are the bundle's, and end the connections that lost their permit. Unless "
        "confirmed in time the bundle before runs again, by itself, also after a restart.",
        "0: it runs, on trial; 2: it is refused, or did not come to run, and what ran before runs; "
        "3: the machine lacks something. Example: netpolicy apply shinagawa-line-fw-8.bundle --confirm 60s",
        _apply_arguments,
        _apply,
    ),
    "confirm": Command(
        "keep the bundle that is on trial",
        "Make the bundle on trial the one that runs from now on. Say this over a connection through the new rules: "
        "that it can be said shows that the firewall can still be managed.",
        "0: it is kept; 2: none is on trial, or its time is over.",
        _json_argument,
        _confirm,
    ),
    "rollback": Command(
        "go back to the bundle before",
        "End a trial at once; without one, go back to the bundle that was confirmed before the one that runs.",
        "0: the bundle before runs; 2: there is none, or it does not come to run: then nothing passes any more.",
        _json_argument,
        _rollback,
    ),
    "drift": Command(
        "compare what runs with what was signed",
        "Compare the kernel's rules with the bundle's, as sets of packets, and its settings, addresses, routes, "
        "engines and relay with it as well; print every difference.",
        "0: there is none; 1: there is one.",
        _json_argument,
        _drift,
    ),
    "status": Command(
        "tell what this appliance runs",
        "Print which firewall this is, which bundle runs, which is on trial and which one there is to go back to.",
        "0: it enforces a bundle; 1: it is closed.",
        _json_argument,
        _status,
    ),
    "renew": Command(
        "have another certificate and newer revocation lists",
        "Take chain.pem and crl.pem, and key.pem if the certificate is for another key, from DIR, as 'netpolicy pki' "
        "writes it for this firewall: for its relay and its management. The names must be those of the present "
        "certificate, no list may be older than the present one, and the authority that is trusted stays the same. "
        "Living connections go on.",
        "0: they are in force; 2: they are refused, and the present ones stay. Example: netpolicy renew /run/renewed",
        _renew_arguments,
        _renew,
    ),
    "image-update": Command(
        "write a new image into the slot that does not run",
        "Verify FILE, an image signed by the authority of releases, and write it into the slot that does not run. The "
        "next boot tries it, and goes back to this one by itself if it does not come to enforce its bundle.",
        "0: the next boot tries it; 2: it is refused, and the next boot has what runs now.",
        _image_arguments,
        _update,
    ),
}
"""By name."""
