"""The lock file of signature ids: every signature keeps its number for ever, and its revision counts its changes."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

from netpolicy.diagnostics import Diagnostic, InputError, Severity
from netpolicy.inputs import read_regular
from netpolicy.topology.model import Place

FIRST, LAST = 1_000_000, 1_999_999
"""The range for local rules (docs.suricata.io, "Rule IDs")."""
MAX_BYTES = 256 * 1024 * 1024
_COLUMNS = ("sid", "rev", "created", "updated", "sha256", "firewall", "signature")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one signature of one firewall."""

    sid: int
    rev: int
    created: date
    updated: date
    sha256: str
    """Of the rule without its number, revision and dates."""


@dataclass(slots=True)
class SidLock:
    """The numbers of all signatures of a network, those that are gone included: no number is used twice."""

    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    """By firewall and :attr:`ids_rules.signature.Signature.key`."""

    def assign(self, firewall: str, key: str, text: str, day: date) -> Entry:
        """Return the entry of a signature, made or revised if need be.

        Args:
            firewall: Its id.
            key: Of the signature.
            text: The rule without its number, revision and dates.
            day: The day that the policy is judged on.

        Raises:
            OverflowError: There are no numbers left.

        """
        digest = hashlib.sha256(text.encode()).hexdigest()
        known = self.entries.get((firewall, key))
        if known is None:
            sid = max((entry.sid for entry in self.entries.values()), default=FIRST - 1) + 1
            if sid > LAST:
                raise OverflowError(f"no signature ids are left between {FIRST} and {LAST}")
            known = Entry(sid, 1, day, day, digest)
        elif known.sha256 != digest:
            known = replace(known, rev=known.rev + 1, updated=day, sha256=digest)
        self.entries[firewall, key] = known
        return known

    def text(self) -> str:
        """Return the file."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for (firewall, key), entry in sorted(self.entries.items(), key=lambda item: item[1].sid):
            row = (entry.sid, entry.rev, entry.created, entry.updated, entry.sha256, firewall, key)
            writer.writerow(row)
        return stream.getvalue()


def lock_path(topology: Path) -> Path:
    """Return where the lock file of a topology is: beside it."""
    return topology.with_suffix(".sids.csv")


def read_lock(path: Path) -> SidLock:
    """Return the lock file, an empty one if there is none.

    Raises:
        InputError: It is not one, or two signatures share a number.
        OSError: It cannot be read.

    """
    if not path.exists():
        return SidLock()
    try:
        text = read_regular(path, MAX_BYTES).decode("utf-8")
        rows = list(csv.reader(io.StringIO(text), strict=True))
    except OSError as refused:
        text = f"the file cannot be read: {refused.strerror}"
        raise InputError([_wrong(path, 1, text, f"a regular file of at most {MAX_BYTES} bytes")]) from refused
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError([_wrong(path, 1, f"this is not CSV in UTF-8: {error}", ",".join(_COLUMNS))]) from error
    if not rows or tuple(rows[0]) != _COLUMNS:
        raise InputError([_wrong(path, 1, "this is not a lock file of signature ids", ",".join(_COLUMNS))])
    return _lock(path, rows[1:])


def _lock(path: Path, rows: Iterable[list[str]]) -> SidLock:
    lock, seen, wrong = SidLock(), dict[int, int](), []
    for line, row in enumerate(rows, start=2):
        try:
            entry, place = _entry(row)
        except ValueError:
            wrong.append(_wrong(path, line, f"'{','.join(row)}' is not an entry", ",".join(_COLUMNS)))
            continue
        if entry.sid in seen:
            wrong.append(_wrong(path, line, f"sid {entry.sid} stands in line {seen[entry.sid]} already", "a new one"))
        elif place in lock.entries:
            wrong.append(_wrong(path, line, f"'{'/'.join(place)}' has a sid already", "one for each signature"))
        seen.setdefault(entry.sid, line)
        lock.entries[place] = entry
    if wrong:
        raise InputError(wrong)
    return lock


def _entry(row: list[str]) -> tuple[Entry, tuple[str, str]]:
    sid, rev, created, updated, sha256, firewall, key = row
    entry = Entry(int(sid), int(rev), date.fromisoformat(created), date.fromisoformat(updated), sha256)
    if not FIRST <= entry.sid <= LAST or entry.rev < 1 or not _HASH.fullmatch(sha256):
        raise ValueError(row)
    return entry, (firewall, key)


def _wrong(path: Path, line: int, message: str, expected: str) -> Diagnostic:
    return Diagnostic(Place(str(path), line, 1), Severity.ERROR, message, expected)
