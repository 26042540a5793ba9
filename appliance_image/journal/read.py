"""Reading the records of a journal, also while it is written."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from appliance_image.journal.errors import JournalError
from appliance_image.journal.record import MalformedError, Record, parse
from appliance_image.journal.segments import Line, lines, segments


def records(directory: Path, first: int = 1) -> Iterator[Record]:
    """Yield the records of a journal from number `first` on, without judging their chain.

    Raises:
        JournalError: It is no directory, or a line is no record.

    """
    if not directory.is_dir():
        raise JournalError(f"{directory}: there is no journal")
    found = segments(directory)
    # A segment whose successor begins at or before `first` holds nothing that is wanted.
    needless = {this for this, following in pairwise(found) if 0 < _first(following) <= first}
    for path in found:
        if path in needless:
            continue
        for line in lines(path):
            if not line.torn and (record := _record(line)).seq >= first:
                yield record


def _first(segment: Path) -> int:
    """Return the number of the first record of a segment, 0 if it has none."""
    for line in lines(segment):
        return 0 if line.torn else _record(line).seq
    return 0


def _record(line: Line) -> Record:
    try:
        return parse(line.raw)
    except MalformedError as refused:
        raise JournalError(f"{line.path}:{line.number}: altered: {refused}") from None
