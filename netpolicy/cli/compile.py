"""``netpolicy compile``: write the artefacts of every firewall."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from ids_rules.lock import lock_path, read_lock
from ids_rules.seven import LIMITS
from ids_rules.version import NEWEST, Suricata
from netpolicy.build import BuildError, compile_files, write_build
from netpolicy.build.manifest import MANIFEST
from netpolicy.build.tree import replace_file
from netpolicy.cli._journalled import Recorded, add_journal, journalled
from netpolicy.cli._topology import add_sids, add_topology, day
from netpolicy.intent.check import check_topology
from netpolicy.rooted import Root, RootError
from netpolicy.topology.certificates import read_certificates

_DOES_NOT_HOLD = 1


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "compile",
        help="write the artefacts of every firewall",
        description="Compile TOPOLOGY to one directory for each firewall and a manifest. "
        "Needs neither root nor nftables. The same input gives the same bytes; a failure leaves the previous build. "
        "Signatures keep their numbers in TOPOLOGY's .sids.csv, which is written where it changes.",
    )
    add_topology(parser)
    add_sids(parser)
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("build"), help="default: %(default)s")
    parser.add_argument("--as-of", metavar="DATE", type=day, help="judge on this day (YYYY-MM-DD)")
    parser.add_argument(
        "--certificates",
        metavar="FILE",
        type=Path,
        help="CSV of the ends' certificates (id,uri,not_after,sha1,sha256) to pin for inspected flows; default: none",
    )
    parser.add_argument(
        "--suricata",
        metavar="MAJOR",
        type=int,
        choices=[version.value for version in Suricata],
        default=NEWEST.value,
        help="major version of the inline engines: %(choices)s; 7 enforces less, which is told; default: %(default)s",
    )
    parser.add_argument(
        "--locked", action="store_true", help="write nothing, and end with 1, if a signature is new or has changed"
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="have Suricata and HAProxy check every configuration before anything is written; needs root and 'make "
        "setup': 1 if one is refused, 3 if a program is missing",
    )
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")
    add_journal(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return journalled(args, "compile", _compile)


def _compile(args: argparse.Namespace, recorded: Recorded) -> int:
    checked = check_topology(args.topology, as_of=args.as_of)
    for warning in checked.warnings:
        print(warning, file=sys.stderr)
    topology = checked.topology
    recorded["topology_sha256"] = topology.digest
    if args.certificates is not None:
        topology = replace(topology, certificates=read_certificates(args.certificates, topology))
    path = args.sids or lock_path(args.topology)
    lock = read_lock(path)
    before = lock.text()
    suricata = Suricata(args.suricata)
    _tell_limits(suricata)
    files = compile_files(topology, lock, suricata)
    changed = lock.text() != before
    if changed and args.locked:
        print(
            f"netpolicy: {path} does not hold the signatures of {args.topology}: compile without --locked",
            file=sys.stderr,
        )
        return _DOES_NOT_HOLD
    if args.verify and (refused := _refusals(files, suricata)):
        for each in refused:
            print(f"netpolicy: {each}", file=sys.stderr)
        return _DOES_NOT_HOLD
    if changed:
        _keep(path, lock.text())  # first: numbers that no build has yet do no harm, the other way round they would
    write_build(args.out, files)
    recorded["out"] = str(args.out)
    recorded["manifest_sha256"] = sha256(files[MANIFEST].encode()).hexdigest()
    firewalls = list(checked.topology.firewalls)
    if args.json:
        summary = {"out": str(args.out), "firewalls": firewalls, "suricata": suricata.value}
        print(json.dumps({**summary, "warnings": len(checked.warnings)}, indent=2))
    else:
        print(f"{args.out}: {len(firewalls)} firewalls of network {checked.topology.id}")
        if changed:
            print(f"{path}: the numbers of signatures; commit it")
    return 0


def _keep(path: Path, numbers: str) -> None:
    try:
        replace_file(path, numbers)
    except OSError as refused:
        text = f"the numbers of signatures cannot be kept in {path}: {refused.strerror}; name another file with --sids"
        raise BuildError(text) from refused


def _tell_limits(suricata: Suricata) -> None:
    if suricata is Suricata.V7:
        for kind, passes in LIMITS.items():
            print(f"netpolicy: warning: Suricata 7, {kind}: {passes}", file=sys.stderr)


def _refusals(files: Mapping[str, str], suricata: Suricata) -> list[str]:
    """Return what the programs that a build is for do not take of it.

    Raises:
        RootError: One is missing.

    """
    from netpolicy.rooted.build import refusals

    root = Root.find()
    if root is None:
        text = (
            f"Suricata {suricata.value} and HAProxy are missing: there is no root that they could run from: make setup"
        )
        raise RootError(text)
    if root.suricata is not suricata:
        raise RootError(f"Suricata {suricata.value} is missing: {root.directory} has {root.suricata.value}: make setup")
    return refusals(root, files)
