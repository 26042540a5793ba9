"""``netpolicy ids``: the signatures by themselves."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from netpolicy.build.tree import BuildError, replace_tree
from netpolicy.build.vendor import VENDOR_RULES, built_for, read_build, with_vendor
from netpolicy.diagnostics import InputError
from netpolicy.intent.derive import derive_intents
from netpolicy.rooted import Root, RootError
from netpolicy.topology.load import load_topology

if TYPE_CHECKING:
    from conformance.replay import Row
    from ids_rules.vendor import VendorFile

_HOLDS, _FINDING, _BAD_INPUT, _MACHINE_LACKS = 0, 1, 2, 3


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "ids", help="try the signatures on captures", description="Work with the signatures of the inline engines."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    replay = commands.add_parser(
        "replay",
        help="recognise forbidden protocols in captures",
        description="Run an inline engine over every capture (pcap, pcapng, cap) of FOLDER and print which forbidden "
        "protocols it recognises, on which port. A protocol that a file is called after (smtp-auth.pcap) is expected "
        "in it: 0 if all that is expected was seen, 1 if not, 2 if a capture could not be read (the others are). Needs "
        "root, and the root of the inline engine.",
    )
    replay.add_argument("folder", metavar="FOLDER", type=Path)
    replay.add_argument(
        "--topology", metavar="FILE", type=Path, default=Path("topology.yaml"), help="default: %(default)s"
    )
    replay.add_argument("--json", action="store_true", help="print the rows as JSON")
    replay.set_defaults(run=run_replay)
    merge = commands.add_parser(
        "merge",
        help="put a vendor's rules beside ours",
        description="Merge rule files of vendors with suricata-update and put them beside our signatures, for every "
        "engine of a build; what a build had of vendors before is replaced. Refused, with their lines: what is no "
        "rule, numbers that occur twice or are ours, actions other than alert and drop, and whatever Suricata does "
        "not take. Every engine's configuration is tried before anything is written. Needs root, and the root of the "
        "inline engine.",
    )
    merge.add_argument("--vendor", metavar="FILE", type=Path, action="append", required=True, help="may be repeated")
    merge.add_argument("--build", metavar="DIR", type=Path, default=Path("build"), help="default: %(default)s")
    merge.set_defaults(run=run_merge)


def run_replay(args: argparse.Namespace) -> int:
    """Run the command."""
    from conformance.lab import LabError
    from conformance.lab.rooted import Root, compile_for
    from conformance.replay import replay_folder

    topology = load_topology(args.topology).topology
    root = Root.find()
    if root is None:
        print("netpolicy: there is no root of the inline engine: make setup", file=sys.stderr)
        return _MACHINE_LACKS
    # Forbidden protocols are forbidden everywhere alike.
    intent = next(iter(derive_intents(topology).values()))
    with tempfile.TemporaryDirectory(prefix="netpolicy-") as directory:
        configuration = Path(directory) / "build" / intent.id / "suricata"
        try:
            compile_for(root, topology, Path(directory) / "build")
            rows = list(replay_folder(root, configuration, intent.engines[0], args.folder))
        except LabError as refused:
            print(f"netpolicy: {refused}", file=sys.stderr)
            return _BAD_INPUT
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False))
    else:
        _print(rows)
    if any(row.failed for row in rows):
        return _BAD_INPUT
    return _FINDING if any(row.expected and not row.seen for row in rows) else _HOLDS


def run_merge(args: argparse.Namespace) -> int:
    """Run the command."""
    from ids_rules.vendor import MergeError, merge, read_vendor

    root = Root.find()
    if root is None:
        print("netpolicy: there is no root of the inline engine: make setup", file=sys.stderr)
        return _MACHINE_LACKS
    files = read_build(args.build)
    try:
        version = root.suricata
    except RootError as unknown:
        print(f"netpolicy: {unknown}", file=sys.stderr)
        return _MACHINE_LACKS
    if built_for(files) != version:
        raise BuildError(f"{args.build} is not for Suricata {version.value}, which {root.directory} has: compile again")
    vendors = read_vendor(args.vendor)
    stock = {
        name: (root.directory / "etc/suricata" / name).read_text(encoding="utf-8")
        for name in ("classification.config", "reference.config")
    }
    sources = {each.path.name: hashlib.sha256(each.text.encode()).hexdigest() for each in vendors}
    for vendor in vendors:
        _try_vendor(root, with_vendor(files, vendor.text, stock, sources), vendor)
    try:
        merged = with_vendor(files, merge(vendors, version), stock, sources)
    except MergeError as failed:
        raise BuildError(str(failed)) from failed
    engines = _try_engines(root, merged)
    replace_tree(args.build, merged)
    rules = sum(len(each.rules) for each in vendors)
    print(f"{rules} rules from {len(vendors)} files beside ours; {engines} engines take them; in {args.build}")
    return _HOLDS


def _try_vendor(root: Root, files: Mapping[str, bytes], vendor: VendorFile) -> None:
    """Have one engine load a vendor's file alone, so that what it says against it has the file's own lines.

    Raises:
        InputError: It does not take all of it.

    """
    from ids_rules.vendor import complaints
    from netpolicy.rooted.engine import dry_run

    with _staged(files) as engines:
        configuration, interface = next(engines)
        said = dry_run(root, configuration, interface, rules=VENDOR_RULES)
    if said:
        raise InputError(complaints(vendor.path, said))


def _try_engines(root: Root, files: Mapping[str, bytes]) -> int:
    """Have every engine of a build load its configuration; return their number.

    Raises:
        BuildError: One does not take it.

    """
    from netpolicy.rooted.engine import dry_run

    count = 0
    with _staged(files) as engines:
        for configuration, interface in engines:
            if said := dry_run(root, configuration, interface):
                raise BuildError(f"the engine of {configuration.parent.name} at {interface}: {said[0]}")
            count += 1
    return count


@contextmanager
def _staged(files: Mapping[str, bytes]) -> Iterator[Iterator[tuple[Path, str]]]:
    """Write what engines read to a directory that goes again; give their configurations and interfaces."""
    with tempfile.TemporaryDirectory(prefix="netpolicy-") as directory:
        replace_tree(Path(directory) / "build", {path: files[path] for path in files if "/suricata/" in path})
        found = sorted((Path(directory) / "build").glob("*/suricata/engine-*.yaml"))
        yield ((path.parent, path.stem.removeprefix("engine-")) for path in found)


def _print(rows: list[Row]) -> None:
    lines = [["capture", "protocol", "port", "expected", "seen"]]
    for row in rows:
        port = "-" if row.port is None else str(row.port)
        seen = f"not read: {row.failed}" if row.failed else str(row.seen)
        lines.append([row.capture, row.protocol or "-", port, "yes" if row.expected else "-", seen])
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    wanted = [row for row in rows if row.expected]
    captures = len({row.capture for row in rows})
    holding = len({row.capture for row in rows if row.seen})
    failed = sum(row.failed is not None for row in rows)
    found = sum(row.seen > 0 for row in wanted)
    counts = f"{captures} captures: {holding} with something in them, {failed} not read"
    print(f"{counts}; {found} of {len(wanted)} expected seen")
