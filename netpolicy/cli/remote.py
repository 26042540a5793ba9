"""``netpolicy remote``: the commands of an appliance, from its operator's console."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from netpolicy.cli._topology import TOPOLOGY
from netpolicy.inputs import read_regular
from netpolicy.topology.load import load_topology

if TYPE_CHECKING:
    from appliance_image.management.client import Target
    from appliance_image.management.protocol import Document
    from appliance_image.management.tls import Files

_HOLDS, _FINDING, _BAD_INPUT, _MACHINE_LACKS = 0, 1, 2, 3
_CHUNK = 500

_COMMANDS = {
    "status": "tell what the appliance runs; 1: it is closed",
    "drift": "compare what runs with what was signed; 1: they differ",
    "apply": "put a bundle on trial",
    "confirm": "keep the bundle that is on trial: over a new connection, which shows that there can be one",
    "rollback": "end a trial at once, or go back to the bundle before",
    "journal": "print its usage records, one line of JSON each, or keep a copy of them",
    "renew": "give it another certificate and newer revocation lists, from the directory that 'netpolicy pki' writes",
    "restart": "have it start again, as after image-update, and wait until it is back; 1: it is closed then",
    "image-update": "put a new image into the slot that does not run",
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "remote",
        help="manage an appliance over the network",
        description="Ask the appliance FIREWALL, over mutual TLS as the flows of TOPOLOGY permit it, from the machine "
        "of the operator whose certificate and key are in DIR (chain.pem, key.pem, trust.pem, crl.pem). Nothing is "
        "said before it has shown that it is that firewall. Exit codes: 0 holds; 1 does not hold; 2 it refuses, or the "
        "call is wrong; 3 it is not reached, or either side does not trust the other.",
        epilog="example: netpolicy remote shinagawa-line-fw --identity ends/agency-operator apply "
        "shinagawa-line-fw-8.bundle --confirm 60s",
    )
    parser.add_argument("firewall", metavar="FIREWALL", help="its name, or one of its addresses")
    parser.add_argument("--identity", metavar="DIR", type=Path, required=True, help="the operator's certificate")
    parser.add_argument("--topology", metavar="TOPOLOGY", type=Path, default=TOPOLOGY, help="default: %(default)s")
    parser.add_argument("--ip", type=int, choices=(4, 6), help="version; default: what both ends have, IPv4 first")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, what in _COMMANDS.items():
        command = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        if name == "apply":
            from appliance_image.agent.commands import seconds

            command.add_argument("upload", metavar="BUNDLE", type=Path)
            command.add_argument(
                "--confirm", metavar="TIME", type=seconds, required=True, help="how long it is on trial, 20s to 60m"
            )
        elif name == "renew":
            command.add_argument("directory", metavar="END", type=Path, help="ends/FIREWALL of 'netpolicy pki'")
        elif name == "restart":
            from appliance_image.agent.commands import seconds

            command.add_argument(
                "--wait", metavar="TIME", type=seconds, default=600.0, help="how long for it (default: 10m; 0s: not)"
            )
        elif name == "image-update":
            command.add_argument("upload", metavar="FILE", type=Path)
        elif name == "journal":
            which = command.add_mutually_exclusive_group()
            which.add_argument("--since", metavar="SEQ", type=int, default=1, help="from this record on")
            which.add_argument(
                "--into",
                metavar="DIR",
                type=Path,
                help="add what is new to the copy in DIR, if it follows",
            )
            command.add_argument(
                "--checkpoint-key", metavar="PEM", type=Path, help="with --into: who must have signed its checkpoints"
            )
        if name != "journal":
            command.add_argument("--json", action="store_true", help="print the answer as JSON")
        command.set_defaults(run=run, command=name)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from appliance_image.management.errors import LinkError, RefusedError
    from appliance_image.management.tls import Files
    from netpolicy.intent.reach import ReachError

    try:
        target = _target(args)
    except (ReachError, ValueError) as wrong:
        print(f"netpolicy: {wrong}", file=sys.stderr)
        return _BAD_INPUT
    commands: dict[str, Callable[[Target, Files, argparse.Namespace], int]] = {
        "status": _status,
        "drift": _drift,
        "journal": _journal,
        "renew": _renew,
        "restart": _restart,
    }
    try:
        return commands.get(args.command, _change)(target, Files(args.identity), args)
    except RefusedError as refused:
        if getattr(args, "json", False):
            print(json.dumps({"code": refused.code, "error": refused.text}, ensure_ascii=False, indent=1))
        print(f"netpolicy: {target.firewall} refuses: {refused.code}: {refused.text}", file=sys.stderr)
        return _BAD_INPUT
    except LinkError as failed:
        print(f"netpolicy: {failed}", file=sys.stderr)
        return _MACHINE_LACKS


def _target(args: argparse.Namespace) -> Target:
    from appliance_image.management.client import Target
    from appliance_image.management.protocol import ALPN
    from netpolicy.intent.reach import reach
    from netpolicy.pki.subject import uri_of

    topology = load_topology(args.topology).topology
    found = reach(topology, args.firewall, uri_of(args.identity / "chain.pem"), ALPN)
    addresses = [str(each) for each in found.addresses if args.ip in {None, each.version}]
    if not addresses:
        raise ValueError(f"'{found.operator}' does not reach '{found.firewall}' over IPv{args.ip}")
    prologue = (found.prologue or "").encode("ascii")
    return Target(
        found.firewall, addresses[0], found.port, prologue, found.first_name, found.first_uri, found.name, found.uri
    )


def _status(target: Target, files: Files, args: argparse.Namespace) -> int:
    return _tell_status(_ask(target, files, "status", {}), args)


def _tell_status(found: Document, args: argparse.Namespace) -> int:
    if args.json:
        print(json.dumps({name: found[name] for name in found if name != "rows"}, ensure_ascii=False, indent=1))
    else:
        for name, value in found["rows"]:
            print(f"{_shown(name):<14}{_shown(value)}")
    return _HOLDS if found.get("enforcing") is True else _FINDING


def _drift(target: Target, files: Files, args: argparse.Namespace) -> int:
    found = _ask(target, files, "drift", {})
    if args.json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
    else:
        for line in found["lines"]:
            print(_shown(line))
    return _HOLDS if found.get("none") is True else _FINDING


def _journal(target: Target, files: Files, args: argparse.Namespace) -> int:
    if args.checkpoint_key is not None and args.into is None:
        print("netpolicy: --checkpoint-key says who must have signed a copy: give --into", file=sys.stderr)
        return _BAD_INPUT
    if args.into is not None:
        return _copy(target, files, args.into, args.checkpoint_key)
    for line in _records(target, files, args.since):
        print(_shown(line))
    return _HOLDS


def _copy(target: Target, files: Files, directory: Path, key: Path | None) -> int:
    from appliance_image.journal import JournalError
    from appliance_image.journal.record import MalformedError, parse
    from appliance_image.journal.replica import Replica

    count = 0
    try:
        copy = Replica(directory, None if key is None else read_regular(key, 1 << 16))
        since = copy.head().seq + 1
    except (JournalError, OSError, ValueError) as wrong:
        print(f"netpolicy: {wrong}", file=sys.stderr)
        return _BAD_INPUT
    try:
        for line in _records(target, files, since):
            copy.take(parse(f"{line}\n".encode()))
            count += 1
    except (JournalError, MalformedError) as found:
        print(f"netpolicy: {target.firewall}: {found}; nothing from there on was kept", file=sys.stderr)
        return _FINDING
    print(f"journal: {count} new records of {target.firewall}; the newest is {copy.head()}")
    return _HOLDS


def _records(target: Target, files: Files, since: int) -> Iterator[str]:
    """Yield the lines of the journal from record `since` on."""
    from appliance_image.management.client import connected
    from appliance_image.management.protocol import Request

    more = True
    while more:
        # A connection takes so many requests; a long journal takes several.
        with connected(target, files) as connection:
            for _ in range(32):
                found = connection.ask(Request("journal", {"since": since, "most": _CHUNK}))
                yield from found["records"]
                more, since = found["more"] is True and found["next"] > since, found["next"]
                if not more:
                    break


def _change(target: Target, files: Files, args: argparse.Namespace) -> int:
    from appliance_image.management import client

    if args.command == "confirm":
        done = client.confirm(target, files, _progress)
    else:
        arguments: Document = {"confirm": round(args.confirm)} if args.command == "apply" else {}
        upload = getattr(args, "upload", None)
        done = client.change(target, files, args.command, arguments, upload=upload, progress=_progress)
    if args.json:
        print(json.dumps(done, ensure_ascii=False, indent=1))
        return _HOLDS
    if args.command == "image-update":
        print(f"image-update: version {_shown(done.get('version'))} is in slot {_shown(done.get('slot'))}")
        print("  the next boot tries it, and what runs now again if it does not come up healthy")
        return _HOLDS
    print(f"{args.command}: {target.firewall} runs serial {done.get('serial')}, sha256 {_shown(done.get('sha256'))}")
    for detail in done.get("details") or ():
        print(f"  {_shown(detail)}")
    if done.get("confirm_seconds") is not None:
        call = f"netpolicy remote {target.firewall} --identity {args.identity} --topology {args.topology} confirm"
        print(f"  on trial: it goes back by itself in {done['confirm_seconds']:.0f} s unless you say '{call}'")
    return _HOLDS


def _renew(target: Target, files: Files, args: argparse.Namespace) -> int:
    from appliance_image.agent.errors import AgentError
    from appliance_image.agent.renew import offered
    from appliance_image.management import client, renewal

    try:
        upload = renewal.pack(offered(args.directory))
    except (AgentError, UnicodeDecodeError) as wrong:
        print(f"netpolicy: {args.directory}: {wrong}", file=sys.stderr)
        return _BAD_INPUT
    done = client.change(target, files, "renew", {}, upload=upload, progress=_progress)
    if args.json:
        print(json.dumps(done, ensure_ascii=False, indent=1))
        return _HOLDS
    print(f"renew: {target.firewall} has certificate {_shown(done.get('certificate'))}, "
          f"until {_shown(done.get('certificate_until'))}; lists until {_shown(done.get('lists_until'))}")  # fmt: skip
    return _HOLDS


def _restart(target: Target, files: Files, args: argparse.Namespace) -> int:
    from appliance_image.management import client

    found = client.restart(target, files, args.wait, _progress)
    if found is None:
        print(f"restart: {target.firewall} starts again")
        return _HOLDS
    return _tell_status(found, args)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"netpolicy: {_shown(text)}", file=sys.stderr)


def _ask(target: Target, files: Files, command: str, arguments: Document) -> Document:
    from appliance_image.management.client import connected
    from appliance_image.management.protocol import Request

    with connected(target, files) as connection:
        return connection.ask(Request(command, arguments))


def _shown(value: object) -> str:
    """Return what an appliance said as a terminal may have it."""
    from appliance_image.management.errors import printable

    return printable(str(value), 1 << 14)
