"""``netpolicy diff``: which packets one network passes and another does not."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

_BAD_INPUT, _MACHINE_LACKS = 2, 3


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "diff",
        help="tell all packets that a change permits or stops",
        description="Compare two topologies, two builds, or a build with what this network namespace's kernel holds "
        "('live'), and print every packet that is newly permitted or newly stopped, by flow and legal basis. With "
        "'live' also what of frames, addresses, routes, policy rules, neighbours and kernel settings is otherwise. "
        "0: there is no difference; 1: there is one. Topologies take no root; rulesets are read back from a kernel.",
        epilog="example: netpolicy diff main/topology.yaml topology.yaml --markdown",
    )
    parser.add_argument("old", metavar="OLD", help="a topology, a directory written by 'compile', or 'live'")
    parser.add_argument("new", metavar="NEW", help="the same kind of thing")
    parser.add_argument("--firewall", metavar="ID", help="compare only this one; with 'live': which one it is")
    parser.add_argument("--topology", metavar="FILE", type=Path, help="names and legal bases for builds")
    parser.add_argument("--all", action="store_true", help="also what follows for ICMP errors and the relay, in full")
    parser.add_argument(
        "--most", metavar="N", type=int, default=200, help="print N lines; 0: all; default: %(default)s"
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print all of it as JSON")
    output.add_argument("--markdown", action="store_true", help="print it for a merge request")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from netpolicy.proof.boxes import TooFineError
    from netpolicy.proof.compare import ComparisonError, compare
    from netpolicy.proof.difftext import document, markdown, text
    from netpolicy.proof.netlink import MalformedError
    from netpolicy.proof.network import NetworkError
    from netpolicy.proof.read import LoadError, MissingError
    from netpolicy.proof.settings import SettingError
    from netpolicy.proof.terms import RefusedError

    try:
        found, parts = compare(args.old, args.new, firewall=args.firewall, topology=args.topology)
    except MissingError as lacking:
        print(f"netpolicy: {lacking}", file=sys.stderr)
        return _MACHINE_LACKS
    except (
        *(ComparisonError, LoadError, MalformedError, NetworkError),
        *(RefusedError, SettingError, TooFineError),
    ) as refused:
        print(f"netpolicy: {refused}", file=sys.stderr)
        return _BAD_INPUT
    if args.json:
        print(json.dumps(document(found, parts), ensure_ascii=False, indent=1))
    else:
        write = markdown if args.markdown else text
        most = args.most if args.most > 0 else sys.maxsize
        print(*write(found, parts, most, everything=args.all), sep="\n")
    return 0 if found.empty else 1
