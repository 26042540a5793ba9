"""Commands whose use is recorded."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from appliance_image.journal import Journal, JournalError
from appliance_image.journal.actor import actor
from appliance_image.journal.record import Value

JOURNAL = "NETPOLICY_JOURNAL"
REFUSED = "refused"
"""What a command adds, with the reason, that has refused something; its last record is then one of this event."""
_MACHINE_LACKS = 3

Recorded = dict[str, Value]
"""What a command adds to its record."""


def add_journal(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument(
        "--journal",
        metavar="DIR",
        type=Path,
        default=os.environ.get(JOURNAL) or None,
        help=f"record this use in the journal in DIR; default: ${JOURNAL}, else none",
    )


def journalled(args: argparse.Namespace, event: str, command: Callable[[argparse.Namespace, Recorded], int]) -> int:
    """Run a command between two records, if there is a journal: one that it begins, one of how it ended.

    A record stands on the disk before anything is done, so that not even a command that is killed goes unrecorded; and
    where there is no room for both nothing is done.
    """
    if args.journal is None:
        return command(args, {})
    try:
        journal = Journal.open(args.journal)
        journal.reserve(2)
        topology = getattr(args, "topology", None)
        about: Recorded = {} if topology is None else {"topology": str(topology)}
        begun = journal.append(event, {**actor(), "phase": "begun", **about})
    except (JournalError, OSError) as refused:
        print(f"netpolicy: nothing was done: {refused}", file=sys.stderr)
        return _MACHINE_LACKS
    recorded: Recorded = {}
    try:
        code = command(args, recorded)
    except BaseException as failed:
        _end(journal, event, begun.seq, {**recorded, "failed": f"{type(failed).__name__}: {failed}"})
        raise
    ended = REFUSED if REFUSED in recorded else event
    return code if _end(journal, ended, begun.seq, {**recorded, "exit": code}) else _MACHINE_LACKS


def _end(journal: Journal, event: str, begun: int, fields: Recorded) -> bool:
    try:
        journal.append(event, {**actor(), "phase": "ended", "begun": begun, **fields})
    except (JournalError, OSError) as refused:
        print(f"netpolicy: how this ended is not recorded: {refused}", file=sys.stderr)
        return False
    return True
