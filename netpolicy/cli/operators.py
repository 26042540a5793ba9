"""``netpolicy operators``: authorities for the people who sign bundles, to rehearse with."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from netpolicy.cli._card import add_card, card
from netpolicy.cli._topology import add_topology

if TYPE_CHECKING:
    from netpolicy.pki.operators import Operators

_HOLDS, _DUE, _BAD_INPUT, _MACHINE_LACKS = 0, 1, 2, 3
_COMMANDS = {
    "init": "make an authority of operators for each manager of TOPOLOGY",
    "issue": "certify an operator of MANAGER: a new key on their card, or one in a file",
    "revoke": "revoke all certificates of an operator, and write the manager's new revocation list",
    "crl": "write new revocation lists, of all managers by default",
    "status": "say what is due; exit code 1 if anything is",
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "operators",
        help="authorities for the people who sign bundles",
        description="Keep, in DIR, an authority for the operators of each manager. Production certificates come from "
        "the manager's own authority; this one is for rehearsals, and shows what such an authority must issue. "
        "DIR/trust is what --trust of other commands takes. DIR must not be in a repository.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, what in _COMMANDS.items():
        command = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        command.add_argument("directory", metavar="DIR", type=Path, help="the authorities' files")
        command.set_defaults(run=run, command=name)
        if name == "init":
            add_topology(command)
        if name in {"issue", "revoke"}:
            command.add_argument("manager", metavar="MANAGER")
            command.add_argument("person", metavar="NUMBER", help="tells the operator from all others, for ever")
        if name == "crl":
            command.add_argument("managers", metavar="MANAGER", nargs="*")
        if name == "issue":
            command.add_argument("--name", metavar="NAME", required=True, help="what the operator is called")
            add_card(command)
            command.add_argument(
                "--unsafe-key-file", metavar="FILE", type=Path, help="write a new key there instead of to a card"
            )
            command.add_argument("--out", metavar="FILE", type=Path, help="write the certificate there as well")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from appliance_image.bundle import Code, Refused
    from netpolicy.pki.operators import Operators
    from netpolicy.pki.store import PkiError

    now = datetime.now(UTC)
    try:
        if args.command == "init":
            from netpolicy.topology.load import load_topology

            store = Operators.init(args.directory, load_topology(args.topology).topology, now)
            print(f"{args.directory}: authorities of operators of {', '.join(store.managers())}")
            print(f"  --trust {store.trust}")
            return _HOLDS
        return _act(Operators.open(args.directory), args, now)
    except PkiError as refused:
        print(f"netpolicy: {refused}", file=sys.stderr)
        return _BAD_INPUT
    except Refused as refused:
        print(f"netpolicy: refused ({refused.code}): {refused.text}", file=sys.stderr)
        return _MACHINE_LACKS if refused.code == Code.NO_CARD else _DUE


def _act(store: Operators, args: argparse.Namespace, now: datetime) -> int:
    if args.command == "issue":
        return _issue(store, args, now)
    if args.command == "revoke":
        for each in store.revoke(args.manager, args.person, now):
            print(f"{each.name} ({each.person}): certificate {each.serial:x} is revoked")
        print(f"  --crl {store.directory / args.manager / 'crl.pem'}")
    elif args.command == "crl":
        for manager in args.managers or store.managers():
            print(f"  --crl {store.publish(manager, now)}")
    else:
        due = list(store.status(now))
        for line in due:
            print(line)
        print(f"{len(list(store.valid(now)))} valid certificates, {len(due)} things are due")
        return _DUE if due else _HOLDS
    return _HOLDS


def _issue(store: Operators, args: argparse.Namespace, now: datetime) -> int:
    from cryptography.hazmat.primitives.serialization import Encoding

    from appliance_image.signing.enrol import enrol, new_key_file
    from netpolicy.pki.store import PkiError

    on_card = args.module is not None and args.token is not None
    if on_card == (args.unsafe_key_file is not None):
        raise PkiError("either a card is named, by --module and --token, or a file by --unsafe-key-file")
    if args.unsafe_key_file is not None and args.out is None:
        raise PkiError("--unsafe-key-file needs --out for the certificate")
    if on_card:
        made = enrol(card(args), lambda key: store.issue(args.manager, args.person, args.name, key, now))
        where = f"token {args.token}"
    else:
        key = new_key_file(args.unsafe_key_file)
        made = store.issue(args.manager, args.person, args.name, key, now)
        where = str(args.unsafe_key_file)
    if args.out is not None:
        args.out.write_bytes(made.public_bytes(Encoding.PEM))
    until = made.not_valid_after_utc
    print(f"{args.name} ({args.person}) of {args.manager}: certificate {made.serial_number:x} until {until:%Y-%m-%d}")
    print(f"  its key is on {where}")
    return _HOLDS
