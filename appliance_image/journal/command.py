"""The command `journal`, the same on the appliance (``python3 -I -m appliance_image.journal``) and elsewhere."""

from __future__ import annotations

import argparse
import json
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from appliance_image.journal import checkpoint
from appliance_image.journal.channel import Credentials, address
from appliance_image.journal.errors import JournalError
from appliance_image.journal.forward import Collector, DivergedError, Sender, connected
from appliance_image.journal.read import records
from appliance_image.journal.receive import Receiver
from appliance_image.journal.record import Record
from appliance_image.journal.slot import Head
from appliance_image.journal.table import table
from appliance_image.journal.verify import examine

_HOLDS, _FINDING, _BAD_INPUT, _MACHINE_LACKS = 0, 1, 2, 3
_SINCE = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d(:\d\d(:\d\d(\.\d{1,6})?)?)?Z?)?)?)?")
_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
"""Seconds between looks at the journal, and at most between attempts to connect."""


def add_actions(parser: argparse.ArgumentParser) -> None:
    """Give a parser what can be done with a journal."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add_verify(actions)
    _add_show(actions)
    _add_forward(actions)
    _add_receive(actions)


def run(args: argparse.Namespace) -> int:
    """Run an action and return its exit code."""
    try:
        code: int = args.act(args)
    except DivergedError as found:
        print(f"netpolicy: {found}", file=sys.stderr)
        return _FINDING
    except JournalError as refused:
        print(f"netpolicy: {refused}", file=sys.stderr)
        return _BAD_INPUT
    return code


def _add_verify(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "verify",
        help="name the first record that was altered, is missing or out of order",
        description="Hold every record of the journal in DIR against the one before it, and end with 1 and the file "
        "and line of the first that is not as it was written.",
    )
    parser.add_argument("directory", metavar="DIR", type=Path)
    parser.add_argument(
        "--key",
        metavar="PUB",
        type=Path,
        action="append",
        default=[],
        help="public key (PEM) of the checkpoints: all records must be sealed by it; may be repeated",
    )
    parser.add_argument(
        "--head",
        metavar="SEQ:HASH",
        type=Head.parse,
        help="a record that must be there, as the collector or an earlier run named it",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(act=_verify)


def _add_show(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "show", help="print records", description="Print the records of the journal in DIR, without judging them."
    )
    parser.add_argument("directory", metavar="DIR", type=Path)
    parser.add_argument("--event", metavar="NAME", action="append", help="only this event; may be repeated")
    parser.add_argument("--since", metavar="TIME", type=_since, help="only from this time on (UTC), 2026-04-01T09:00")
    parser.add_argument("--json", action="store_true", help="print the records as a JSON array")
    parser.set_defaults(act=_show)


def _add_credentials(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--certificate", metavar="PEM", type=Path, required=True, help="of this end, with its chain")
    parser.add_argument("--key", metavar="PEM", type=Path, required=True, help="its private key")
    parser.add_argument("--authorities", metavar="PEM", type=Path, required=True, help="who certifies the other end")
    parser.add_argument("--crl", metavar="PEM", type=Path, required=True, help="their revocation lists")


def _add_forward(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "forward",
        help="send the records to the managing site",
        description="Send the records of the journal in DIR to a collector (`journal receive`), as syslog (RFC 5424) "
        "over TLS (RFC 5425). It goes on where the collector ends. Exit code 1 if the collector has other records.",
    )
    parser.add_argument("directory", metavar="DIR", type=Path)
    parser.add_argument("--to", metavar="HOST:PORT", type=address, required=True)
    parser.add_argument("--name", metavar="NAME", help="in the collector's certificate; default: HOST")
    _add_credentials(parser)
    parser.add_argument("--host", metavar="NAME", default=socket.gethostname(), help="of this one in the messages")
    parser.add_argument("--follow", action="store_true", help="go on with new records, and connect again when it ends")
    parser.set_defaults(act=_forward)


def _add_receive(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "receive",
        help="take the records of many hosts at the managing site",
        description="Accept journals and store each in DIR under the name in the sender's certificate, after holding "
        "every record against its chain.",
    )
    parser.add_argument("directory", metavar="DIR", type=Path)
    parser.add_argument("--listen", metavar="HOST:PORT", type=address, required=True)
    _add_credentials(parser)
    parser.add_argument(
        "--checkpoint-keys",
        metavar="KEYS",
        type=Path,
        help="directory of NAME.pem: the public key that must have signed the checkpoints of NAME",
    )
    parser.set_defaults(act=_receive)


def _since(text: str) -> str:
    if not _SINCE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a time like 2026-04-01T09:00")
    return text.removesuffix("Z")


def _verify(args: argparse.Namespace) -> int:
    report = examine(args.directory, keys=args.key, head=args.head)
    problem = report.problem
    if args.json:
        document = {
            "holds": problem is None,
            "records": report.records,
            "head": None if report.head is None else str(report.head),
            "sealed": report.sealed,
            "problem": None
            if problem is None
            else {"place": problem.place, "kind": problem.kind, "text": problem.text},
        }
        print(json.dumps(document, ensure_ascii=False, indent=2))
    elif problem is not None:
        print(problem)
    else:
        sealed = "" if report.sealed is None else f", sealed up to record {report.sealed}"
        print(f"{args.directory}: {report.records} records hold{sealed}; head {report.head}")
    return _HOLDS if problem is None else _FINDING


def _show(args: argparse.Namespace) -> int:
    chosen = _chosen(args)
    if args.json:
        print(json.dumps([record.document() for record in chosen], ensure_ascii=False, indent=1))
    else:
        for line in table(chosen):
            print(line)
    return _HOLDS


def _chosen(args: argparse.Namespace) -> Iterator[Record]:
    for record in records(args.directory):
        asked = record.event in args.event if args.event else args.json or record.event != checkpoint.EVENT
        if asked and (args.since is None or record.time >= args.since):
            yield record


def _credentials(args: argparse.Namespace) -> Credentials:
    return Credentials(args.certificate, args.key, args.authorities, args.crl)


def _forward(args: argparse.Namespace) -> int:
    host, port = args.to
    collector = Collector(host, port, args.name or host, _credentials(args))
    pause = _PAUSE
    while True:
        try:
            with connected(args.directory, collector, args.host) as sender:
                pause = _PAUSE
                count = sender.send()
                print(f"{args.directory}: {count} records sent, the collector has {sender.position}", flush=True)
                if not args.follow:
                    return _HOLDS
                _go_on(sender)
        except OSError as failed:
            print(f"netpolicy: {host}:{port}: {failed}", file=sys.stderr, flush=True)
            if not args.follow:
                return _MACHINE_LACKS
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _go_on(sender: Sender) -> None:
    while True:
        time.sleep(_PAUSE)
        sender.send()


def _receive(args: argparse.Namespace) -> int:
    keys = {}
    if args.checkpoint_keys is not None:
        keys = {path.stem: path.read_bytes() for path in sorted(args.checkpoint_keys.glob("*.pem"))}
    host, port = args.listen
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        bound = listener.getsockname()
        print(f"listening on {bound[0]} port {bound[1]}", flush=True)
        credentials = _credentials(args)
        credentials.server()  # what is wrong with the files is told at once
        receiver = Receiver(
            args.directory,
            listener,
            credentials,
            keys=keys,
            say=lambda text: print(f"netpolicy: {text}", file=sys.stderr, flush=True),
        )
        try:
            receiver.serve()
        except KeyboardInterrupt:
            receiver.stop()
    return _HOLDS
