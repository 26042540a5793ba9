"""``netpolicy explain``: why a packet passes, or does not."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from netpolicy.build import compile_topology
from netpolicy.cli._topology import add_topology
from netpolicy.intent.check import check_topology
from netpolicy.intent.routing import Routing
from netpolicy.topology.model import Topology

if TYPE_CHECKING:
    from netpolicy.proof.model import Ruleset
    from netpolicy.proof.question import Question
    from netpolicy.proof.walk import Walker

_PERMITTED, _DENIED, _BAD_INPUT, _MACHINE_LACKS = 0, 1, 2, 3
_FILES = ("guard.nft", "nftables.nft")
_STATES = ("new", "established", "reply", "related", "invalid", "untracked")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "explain",
        help="tell why a packet passes, or does not: by rule, flow and law",
        description="Follow a packet through the firewalls of TOPOLOGY, and print at each which rule and element let "
        "it through, for which flow and on which law; or why it is dropped, and the nearest flow that would have "
        "permitted it. 0: permitted; 1: not permitted. Rules are read back from a kernel, which takes root.",
        epilog="example: netpolicy explain topology.yaml --from shinagawa-cs --to tokyo-server --service tcp/80",
    )
    add_topology(parser)
    parser.add_argument("--from", dest="source", metavar="NODE|ADDRESS", help="who sends it")
    parser.add_argument("--to", dest="destination", metavar="NODE|ADDRESS", help="whom it is for")
    parser.add_argument("--service", metavar="NAME|PROTOCOL/PORT", help="a service, tcp/80, udp/53, icmp/8 (type)")
    parser.add_argument("--pcap", metavar="FILE", type=Path, help="ask about the packets of a capture instead")
    parser.add_argument("--count", metavar="N", type=int, default=100, help="packets of it; default: %(default)s")
    parser.add_argument("--state", choices=_STATES, default="new", help="of the connection; default: %(default)s")
    parser.add_argument("--at", metavar="TIME", type=datetime.fromisoformat, help="'2026-11-24 10:00'; default: now")
    parser.add_argument("--ip", type=int, choices=(4, 6), help="version; default: 4 where both ends have it")
    parser.add_argument("--iif", metavar="FIREWALL:INTERFACE", help="where it comes in, if not where its source lives")
    parser.add_argument("--sport", metavar="PORT", type=int, help="of the client; default: 40000")
    parser.add_argument("--tcp-flags", metavar="FLAG,…", help="fin, syn, rst, psh, ack, urg, none; default: by state")
    parser.add_argument("--build", metavar="DIR", type=Path, help="these rules (default: compile TOPOLOGY)")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    given = [args.source, args.destination, args.service]
    if None in given if args.pcap is None else given != [None, None, None]:
        print("netpolicy: give --from, --to and --service, or --pcap", file=sys.stderr)
        return _BAD_INPUT
    topology = check_topology(args.topology).topology
    at = args.at or datetime.now(UTC)
    zone = ZoneInfo(topology.timezone)
    at = at.replace(tzinfo=zone) if at.tzinfo is None else at.astimezone(zone)

    from netpolicy.proof.question import Asked, QuestionError, question
    from netpolicy.proof.read import LoadError, MissingError
    from netpolicy.proof.terms import RefusedError
    from netpolicy.proof.walk import Walker

    routing = Routing(topology)
    try:
        if args.pcap is not None:
            from netpolicy.proof.capture import captured

            questions = list(captured(args.pcap, args.count, zone))
        else:
            asked = Asked(
                source=args.source,
                destination=args.destination,
                service=args.service,
                state=args.state,
                at=at,
                version=args.ip,
                flags=args.tcp_flags,
                enters=args.iif,
                source_port=args.sport,
            )
            questions = [question(topology, routing, asked)]
        walker = Walker(topology, routing, _rulesets(topology, args.build))
    except MissingError as lacking:
        print(f"netpolicy: {lacking}", file=sys.stderr)
        return _MACHINE_LACKS
    except (QuestionError, LoadError, RefusedError) as refused:
        print(f"netpolicy: {refused}", file=sys.stderr)
        return _BAD_INPUT
    return _answer(walker, questions, args)


def _answer(walker: Walker, questions: list[Question], args: argparse.Namespace) -> int:
    from netpolicy.proof.explain import described, document, explain, text, verdict
    from netpolicy.proof.names import Names

    found = [explain(walker, each) for each in questions]
    topology = walker.topology
    if args.json:
        told = [document(topology, each) for each in found]
        print(json.dumps(told if args.pcap is not None else told[0], ensure_ascii=False, indent=1))
    elif args.pcap is None:
        print(*text(topology, found[0]), sep="\n")
    else:
        for number, each in enumerate(found, 1):
            print(f"{number}. {described(Names(topology), each.journey.question)}")
            print(f"   {verdict(each)}")
        print(f"{sum(each.permitted for each in found)} of {len(found)} packets permitted")
    return _PERMITTED if all(each.permitted for each in found) else _DENIED


def _rulesets(topology: Topology, build: Path | None) -> dict[str, Ruleset]:
    """Return what a kernel makes of the rules of every firewall."""
    from netpolicy.proof.read import read_builds

    with ExitStack() as stack:
        if build is None:
            build = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="netpolicy-"))) / "build"
            compile_topology(topology, build)
        read = read_builds(build / name for name in topology.firewalls)
        return dict(zip(topology.firewalls, read, strict=True))
