"""Whether a journal is what was written: every line in its place, and all of it sealed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance_image.journal import checkpoint
from appliance_image.journal.errors import JournalError
from appliance_image.journal.journal import BEGIN, DAMAGED, RECOVERED
from appliance_image.journal.record import MOST_BYTES, START, MalformedError, Record, parse
from appliance_image.journal.segments import HEAD, LOCK, REPLICA, SUFFIX, Line, lines, segment_name, segments
from appliance_image.journal.slot import Head, read_slot


@dataclass(frozen=True, slots=True)
class Problem:
    """The first thing that is wrong."""

    place: str
    """``file:line``."""
    kind: str
    """altered, missing, reordered, foreign, torn, truncated, unsealed or forged."""
    text: str

    def __str__(self) -> str:
        """Return ``file:line: kind: text``."""
        return f"{self.place}: {self.kind}: {self.text}"


@dataclass(frozen=True, slots=True)
class Report:
    """What was found."""

    records: int
    """That hold, up to the first problem."""
    head: Head | None
    """The newest record that holds."""
    sealed: int | None
    """The newest record that a checkpoint covers whose signature was verified; None without a key."""
    problem: Problem | None


class _FoundError(Exception):
    def __init__(self, where: Line | Path, kind: str, text: str) -> None:
        place = f"{where.path}:{where.number}" if isinstance(where, Line) else f"{where}:1"
        self.problem = Problem(place, kind, text)
        super().__init__(text)


def verify(directory: Path, key: Path | None = None, head: Head | None = None) -> Problem | None:
    """Return the first problem of a journal, or None; `examine` says more."""
    return examine(directory, keys=[] if key is None else [key], head=head).problem


def examine(directory: Path, *, keys: Sequence[Path] = (), head: Head | None = None) -> Report:
    """Read a whole journal and judge it.

    Args:
        directory: The journal, or a copy of it.
        keys: Public keys (PEM files) of checkpoints. With one, what no checkpoint covers is a problem, because whoever
            can write the files can write such records.
        head: A record that is known to be in the journal, from the collector or an earlier run. Without it, the removal
            of everything after some checkpoint cannot be noticed.

    Raises:
        JournalError: It is no directory, or a key cannot be read.
        OSError: A file cannot be read.

    """
    if not directory.is_dir():
        raise JournalError(f"{directory}: there is no journal")
    known = checkpoint.by_fingerprint(*(key.read_bytes() for key in keys))
    with _still(directory):
        chain = _Chain(directory, known, head)
        try:
            chain.read()
            chain.end()
        except _FoundError as found:
            return chain.report(found.problem)
    return chain.report(None)


class _Chain:
    """The state of reading a journal from its beginning."""

    def __init__(self, directory: Path, keys: Mapping[str, bytes], head: Head | None) -> None:
        self._directory = directory
        self._keys = keys
        self._head = head
        self._noted: Head | None = None
        self._replica = (directory / REPLICA).exists()
        self._last: Record | None = None
        self._where: Line | Path = directory / segment_name(1)
        self._torn: list[Line] = []
        self._checkpoints: list[tuple[Line, Record]] = []
        self._sealed: int | None = None

    def report(self, problem: Problem | None) -> Report:
        last = self._last
        return Report(
            0 if last is None else last.seq, None if last is None else Head(last.seq, last.hash), self._sealed, problem
        )

    def read(self) -> None:
        try:
            self._noted = read_slot(self._directory / HEAD)
        except ValueError as refused:
            raise _FoundError(self._directory / HEAD, "altered", str(refused)) from None
        found = segments(self._directory)
        foreign = sorted({path for path in self._directory.iterdir() if path.name.endswith(SUFFIX)} - set(found))
        for number, path in enumerate(found, start=1):
            if path.name != segment_name(number):
                raise _FoundError(self._directory / segment_name(number), "missing", "the segment is not there")
            if path.is_symlink() or not path.is_file():
                raise _FoundError(path, "foreign", "it is no file")
            for line in lines(path):
                self._take(line)
        if foreign:
            raise _FoundError(foreign[0], "foreign", "this is no segment of the journal")

    def _take(self, line: Line) -> None:
        if line.torn:
            if len(line.raw) > MOST_BYTES:
                raise _FoundError(line, "altered", "the line is longer than a record can be")
            self._torn.append(line)
            return
        try:
            record = parse(line.raw)
        except MalformedError as refused:
            raise _FoundError(line, "altered", str(refused)) from None
        seq, digest = (0, START) if self._last is None else (self._last.seq, self._last.hash)
        if record.seq != seq + 1:
            raise self._out_of_order(line, record, seq + 1)
        if record.previous != digest:
            raise self._replaced(line, record)
        self._place(line, record)
        self._known(line, record)
        self._last, self._where = record, line
        if record.event == checkpoint.EVENT:
            self._checkpoints.append((line, record))

    def _place(self, line: Line, record: Record) -> None:
        """Hold a record against what must stand where it does."""
        if (record.seq == 1) != (record.event == BEGIN):
            raise _FoundError(line, "altered", f"'{record.event}' cannot be record {record.seq}")
        if record.event == checkpoint.EVENT and record.fields.get("sealed") != record.seq - 1:
            raise _FoundError(line, "altered", "it seals another record than the one before it")
        torn = [each.describe() for each in self._torn]
        told = record.fields.get("torn", []) if record.event in {BEGIN, RECOVERED, DAMAGED} else []
        if torn != told and not (self._replica and not torn):
            where = self._torn[0] if self._torn else line
            raise _FoundError(where, "altered", f"record {record.seq} tells of other torn lines than are found")
        self._torn = []

    def _known(self, line: Line, record: Record) -> None:
        for known in (self._noted, self._head):
            if known is not None and record.seq == known.seq and record.hash != known.hash:
                raise _FoundError(line, "altered", f"its hash is {record.hash}, known is {known}")

    def end(self) -> None:
        """Hold the end of the journal against what is known of it."""
        last = 0 if self._last is None else self._last.seq
        if self._keys:
            self._seals()
        for known in (self._noted, self._head):
            if known is not None and known.seq > last:
                text = f"the journal ends with record {last}, known is {known}"
                raise _FoundError(self._torn[0] if self._torn else self._where, "truncated", text)
        if self._torn:
            raise _FoundError(self._torn[0], "torn", "the line has no end; the next use of the journal records that")
        if self._noted is None:
            raise _FoundError(self._directory / HEAD, "missing", "nothing names the newest record")
        if self._keys and self._sealed != last - 1:
            text = f"no checkpoint covers the records from {1 if self._sealed is None else self._sealed + 2} to {last}"
            raise _FoundError(self._where, "unsealed", text)

    def _seals(self) -> None:
        """Verify signatures; the newest is enough if it holds, for the chain carries it back to the beginning."""
        if self._checkpoints and checkpoint.is_sealed(self._checkpoints[-1][1], self._keys):
            self._sealed = self._checkpoints[-1][1].seq - 1
            return
        for line, record in self._checkpoints:
            if not checkpoint.is_sealed(record, self._keys):
                first = 1 if self._sealed is None else self._sealed + 2
                text = f"none of the keys signed it; the records from {first} to {record.seq} may be others"
                raise _FoundError(line, "forged", text)
            self._sealed = record.seq - 1

    def _out_of_order(self, line: Line, record: Record, expected: int) -> _FoundError:
        if record.seq < expected:
            return _FoundError(line, "reordered", f"record {record.seq} stands where record {expected} belongs")
        for later, found in self._after(line):
            if found.seq == expected:
                there = f"{later.path.name}:{later.number}"
                text = f"record {record.seq} stands where record {expected} belongs, which is at {there}"
                return _FoundError(line, "reordered", text)
        which = f"record {expected} is" if record.seq == expected + 1 else f"records {expected} to {record.seq - 1} are"
        return _FoundError(line, "missing", f"{which} not there; record {record.seq} follows")

    def _replaced(self, line: Line, record: Record) -> _FoundError:
        """Say which of two records that do not fit is the wrong one: the one that the next agrees with is right."""
        _, following = next(self._after(line), (None, None))
        known = [head for head in (self._noted, self._head) if head is not None and head.seq == record.seq]
        agrees = following is not None and following.previous == record.hash
        if (agrees or any(head.hash == record.hash for head in known)) and isinstance(self._where, Line):
            return _FoundError(self._where, "altered", f"record {record.seq} follows another record {record.seq - 1}")
        return _FoundError(line, "altered", "it does not follow the record before it")

    def _after(self, line: Line) -> Iterator[tuple[Line, Record]]:
        """Yield the records that can be read after a line."""
        for path in segments(self._directory):
            if path.name < line.path.name:
                continue
            for later in lines(path):
                if path.name == line.path.name and later.number <= line.number:
                    continue
                try:
                    yield later, parse(later.raw)
                except MalformedError:
                    continue


@contextmanager
def _still(directory: Path) -> Iterator[None]:
    """Keep writers out where there can be one: a copy or a read-only disk has no lock."""
    try:
        descriptor = os.open(directory / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)
