"""``netpolicy prove``: theorems about all packets."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from ids_rules.lock import lock_path, read_lock
from netpolicy.build import compile_files, write_build
from netpolicy.build.compared import read_tree
from netpolicy.build.tree import replace_file
from netpolicy.cli._topology import add_sids, add_topology, day
from netpolicy.topology.certificates import read_certificates
from netpolicy.topology.load import load_topology
from netpolicy.topology.model import Topology

if TYPE_CHECKING:
    from netpolicy.proof.prove import Proof

_HOLDS, _DOES_NOT_HOLD, _BAD_INPUT, _MACHINE_LACKS = 0, 1, 2, 3
_SHOWN = 5
"""Findings of one theorem that are printed; JSON has all."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "prove",
        help="prove for all packets that the rulesets are what the topology says",
        description="Compare every file of a build with what the compiler writes for TOPOLOGY, whose numbers of "
        "signatures stand beside it. Load each firewall's ruleset into a network namespace of its own, read it back "
        "from the kernel, and prove about all packets that it does what TOPOLOGY demands: theorem by theorem, or with "
        "a packet that contradicts it, the rule that decided and the flow it is about. "
        "With --live the rules are those that the kernel of this network namespace holds now, for one firewall, and "
        "frames, addresses, routes, policy rules, neighbours, kernel settings and whatever else decides about packets "
        "are looked at as well. Needs root.",
        epilog="0: all hold; 1: one does not; 2: the input or the call is wrong; 3: the machine lacks something.",
    )
    add_topology(parser)
    add_sids(parser)
    parser.add_argument("--build", metavar="DIR", type=Path, help="judge these files (default: compile TOPOLOGY)")
    parser.add_argument(
        "--live",
        action="store_true",
        help="prove what the kernel of this network namespace holds now, and has beside it, for --firewall",
    )
    parser.add_argument("--firewall", metavar="ID", help="with --live: which one it is")
    parser.add_argument("--as-of", metavar="DATE", type=day, help="judge on this day, as compile did")
    parser.add_argument(
        "--certificates", metavar="FILE", type=Path, help="CSV of the ends' certificates that compile has pinned"
    )
    parser.add_argument("--trace", action="store_true", help="print every rule that a packet has met")
    parser.add_argument("--json", action="store_true", help="print the record as JSON")
    record = parser.add_mutually_exclusive_group()
    record.add_argument("--record", metavar="FILE", type=Path, help="write the record: hashes of what was proven")
    record.add_argument(
        "--check-record", metavar="FILE", type=Path, help="prove nothing, but whether FILE is about these very files"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    topology = _topology(args)
    if (wrong := _wrong_call(args, topology)) is not None:
        print(f"netpolicy: {wrong}", file=sys.stderr)
        return _BAD_INPUT
    lock = read_lock(args.sids or lock_path(args.topology))

    from netpolicy.proof.prove import prove_tree
    from netpolicy.proof.read import LoadError, MissingError
    from netpolicy.proof.record import differences, document
    from netpolicy.proof.running import prove_running
    from netpolicy.proof.terms import RefusedError

    with ExitStack() as stack:
        build = args.build
        if build is None:
            build = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="netpolicy-"))) / "build"
            write_build(build, compile_files(topology, lock))
        if not (build / "manifest.json").is_file():
            print(f"netpolicy: {build} is not a build: it has no manifest.json", file=sys.stderr)
            return _BAD_INPUT
        try:
            if args.check_record is not None:
                found = list(differences(args.check_record, topology, build))
                print(*(found or ["the record is about these files"]), sep="\n")
                return _DOES_NOT_HOLD if found else _HOLDS
            tree = read_tree(build)
            proof = (
                prove_running(topology, tree, args.firewall, lock) if args.live else prove_tree(topology, tree, lock)
            )
        except MissingError as lacking:
            print(f"netpolicy: {lacking}", file=sys.stderr)
            return _MACHINE_LACKS
        except (LoadError, RefusedError, ValueError) as refused:
            print(f"netpolicy: {refused}", file=sys.stderr)
            return _BAD_INPUT
        record = document(proof, topology, tree)
    text = json.dumps(record, ensure_ascii=False, indent=1) + "\n"
    if args.record is not None:
        replace_file(args.record, text)
    if args.json:
        print(text, end="")
    else:
        _print(proof, topology.id, trace=args.trace)
    return _code(proof)


def _wrong_call(args: argparse.Namespace, topology: Topology) -> str | None:
    """Return what does not go together."""
    if args.live != (args.firewall is not None):
        return "--live and --firewall go together: which one this network namespace's kernel is"
    if args.live and (args.record is not None or args.check_record is not None):
        return "a record is about files, and --live about what the kernel holds now"
    if args.live and args.firewall not in topology.firewalls:
        near = get_close_matches(args.firewall, topology.firewalls, 1)
        return f"there is no firewall '{args.firewall}'" + (f"; did you mean '{near[0]}'?" if near else "")
    return None


def _topology(args: argparse.Namespace) -> Topology:
    loaded = load_topology(args.topology, as_of=args.as_of)
    for warning in loaded.warnings:
        print(warning, file=sys.stderr)
    if args.certificates is None:
        return loaded.topology
    return replace(loaded.topology, certificates=read_certificates(args.certificates, loaded.topology))


def _code(proof: Proof) -> int:
    if proof.contradicted:
        return _DOES_NOT_HOLD
    if proof.unasked is not None:
        print(f"netpolicy: engines and relays were not asked about their files: {proof.unasked}", file=sys.stderr)
        return _MACHINE_LACKS
    return _HOLDS


def _print(proof: Proof, network: str, *, trace: bool) -> None:
    for theorem in proof.theorems:
        mark = "✓" if theorem.holds else "✗"
        print(f"{mark} {theorem.id:<10}{theorem.title}")
        print(f"  {'':<10}{theorem.about}: {theorem.seconds:.1f} s")
        for finding in theorem.findings[:_SHOWN]:
            print(f"    {finding}".replace("\n", "\n    "))
            for step in finding.trace if trace else ():
                print(f"            · {step}")
        if len(theorem.findings) > _SHOWN:
            print(f"    … and {len(theorem.findings) - _SHOWN} more (--json)")
    for each in proof.judged:
        print(f"  not the compiler's, but judged: {each}")
    if proof.unasked is not None:
        print(f"? engines   was proven for packets alone: {proof.unasked}")
    for each in proof.unseen:
        print(f"  not looked at: {each}")
    firewalls = f"{proof.firewalls} firewall{'s' * (proof.firewalls != 1)}"
    about = f"{firewalls} of {network}, {proof.rules:,} rules, {proof.elements:,} elements"
    verdict = "proven" if proof.holds else "NOT proven"
    print(f"\n{verdict}: {about}, {proof.seconds:.1f} s")
