"""``netpolicy pki``: a certification authority for the lab, and as a starting point for one of one's own."""

from __future__ import annotations

import argparse
import difflib
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from netpolicy.topology.load import load_topology

if TYPE_CHECKING:
    from netpolicy.pki.store import Store
    from netpolicy.topology.ends import End
    from netpolicy.topology.model import Topology

_HOLDS, _DUE, _BAD_INPUT = 0, 1, 2

_COMMANDS = {
    "init": "make a root, an issuer for each tier, and their first revocation lists",
    "issue": "give ends their first certificates: those named, or all that have none",
    "renew": "give ends new keys and certificates: those named, or all that are due; old ones stay valid",
    "revoke": "revoke the certificates of the ends named",
    "crl": "write new revocation lists; they are short-lived, so do it every day",
    "status": "say what is due; exit code 1 if anything is",
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "pki",
        help="certificates for the ends of a network",
        description="Keep a certification authority in DIR: a root, whose key may be taken off after init, an issuer "
        "for each tier, a certificate with URI and DNS name for each node and firewall, revocation lists with "
        "numbers. Production keys come from the operator's own authority; this one is for labs, and shows what such an "
        "authority must issue.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, what in _COMMANDS.items():
        command = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        command.add_argument("topology", metavar="TOPOLOGY", type=Path)
        command.add_argument("directory", metavar="DIR", type=Path, help="the authority's files")
        if name in {"issue", "renew", "revoke"}:
            least = "+" if name == "revoke" else "*"
            command.add_argument("ends", metavar="END", nargs=least, help="a node or firewall")
        command.set_defaults(run=run, command=name)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from netpolicy.pki.store import PkiError, Store

    now = datetime.now(UTC)
    try:
        topology = load_topology(args.topology).topology
        if args.command == "init":
            Store.init(args.directory, topology, now)
            print(f"{args.directory}: a root and an issuer for each tier of network {topology.id}")
            print(f"take {args.directory / 'root/key.pem'} off this machine now; issuing needs it no more")
            return _HOLDS
        store = Store.open(args.directory, topology)
        code = _act(store, args, now)
        store.save(now)
    except PkiError as refused:
        print(f"netpolicy: {refused}", file=sys.stderr)
        return _BAD_INPUT
    return code


def _act(store: Store, args: argparse.Namespace, now: datetime) -> int:
    if args.command == "status":
        return _status(store, now)
    if args.command == "crl":
        store.publish(now)
        print(f"{store.directory}: new revocation lists for {len(list((store.directory / 'ends').glob('*')))} ends")
        return _HOLDS
    ends = _ends(store.topology, args.ends)
    if args.command == "revoke":
        for end in ends:
            for each in store.revoke(end.id, now):
                print(f"{end.id}: {each.serial:x} is revoked")
        return _HOLDS
    if not args.ends:
        due = store.due(now) if args.command == "renew" else store.without(now)
        ends = [end for end in ends if end.id in due]
    for end in ends:
        found = store.issue(end, now)
        print(f"{end.id}: {found.uri} until {found.not_after:%Y-%m-%d}")
    pinned = store.directory / "certificates.csv"
    print(f"{len(ends)} certificates; pin them with: netpolicy compile --certificates {pinned}")
    return _HOLDS


def _status(store: Store, now: datetime) -> int:
    found = list(store.status(now))
    for line in found:
        print(line)
    print(f"{len(list(store.valid(now)))} valid certificates, {len(found)} things are due")
    return _DUE if found else _HOLDS


def _ends(topology: Topology, names: list[str]) -> list[End]:
    ends: dict[str, End] = {**topology.nodes, **topology.firewalls}
    for name in names:
        if name not in ends:
            from netpolicy.pki.store import PkiError

            near = difflib.get_close_matches(name, ends, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise PkiError(f"there is no node or firewall '{name}'{hint}")
    return [ends[name] for name in names] if names else list(ends.values())
