"""The files of a journal as its writers use them: one at a time, durably, in room that was taken before."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from appliance_image.journal.errors import JournalError, JournalFull
from appliance_image.journal.record import MOST_BYTES, START, MalformedError, Record, parse
from appliance_image.journal.segments import HEAD, LOCK, SPARE, Line, lines, number_of, segment_name, segments
from appliance_image.journal.slot import Head, read_slot, write_slot
from appliance_image.journal.space import FULL, preallocate, release, sync_directory, taken

SEGMENT_BYTES = 1 << 20
"""The longest segment. Two are taken from the disk at any time: the one that is written and a spare."""
_RECENT = 2
LEAST_SEGMENT_BYTES = 32 * MOST_BYTES


@dataclass(frozen=True, slots=True)
class Tail:
    """Where a journal ends."""

    segment: Path | None
    size: int
    """Bytes of that segment."""
    head: Head
    """What the next record follows; sequence number 0 in a journal without records."""
    last: Record | None
    """The newest record that can be read."""
    recent: tuple[str, ...]
    """The last events, two at most, oldest first."""
    torn: tuple[Line, ...]
    """Ends of segments that a power cut tore and that no record tells of yet."""
    damage: str | None
    """What does not agree, and where."""


class Store:
    """A directory of segments."""

    def __init__(self, directory: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        if segment_bytes < LEAST_SEGMENT_BYTES:
            raise ValueError(f"a segment has {LEAST_SEGMENT_BYTES} bytes or more")
        self.directory = directory
        self.segment_bytes = segment_bytes
        _make_directory(directory)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other writer out, also those of this process."""
        descriptor = os.open(self.directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def tail(self) -> Tail:
        """Return where the journal ends; only with the lock."""
        found = segments(self.directory)
        torn: list[Line] = []
        read: list[Record] = []
        damage: str | None = None
        for segment in reversed(found):
            whole: list[Line] = []
            for line in lines(segment):
                (torn if line.torn else whole).append(line)
            for line in reversed(whole):
                try:
                    read.append(parse(line.raw))
                except MalformedError as refused:
                    damage = damage or f"{segment.name}:{line.number}: {refused}"
                if len(read) == _RECENT:
                    break
            if whole:
                # What was torn before these lines has its record among them.
                break
        last = read[0] if read else None
        head = Head(last.seq, last.hash) if last is not None else Head(0, START)
        try:
            noted = read_slot(self.directory / HEAD)
        except ValueError:
            noted, damage = None, damage or f"{HEAD}: it cannot be read"
        if noted is not None and (noted.seq > head.seq or (noted.seq == head.seq and noted.hash != head.hash)):
            # Going on from what was written, not from what is found, keeps the gap visible for ever.
            damage = damage or f"{HEAD}: it names record {noted}, found is {head}"
            head = noted
        size = found[-1].stat().st_size if found else 0
        recent = tuple(record.event for record in reversed(read))
        return Tail(found[-1] if found else None, size, head, last, recent, tuple(reversed(torn)), damage)

    def write(self, tail: Tail, data: bytes, head: Head) -> None:
        """Append whole lines whose newest record is `head`; only with the lock.

        Raises:
            JournalFull: There is no room; nothing was written.
            JournalError: The disk failed.

        """
        segment = tail.segment
        # Nothing follows a torn end in its segment: it stays as evidence, and the lines before it are not touched.
        if segment is None or tail.size + len(data) > self.segment_bytes or _is_torn(segment):
            segment = self._rotate(segment)
        descriptor = os.open(segment, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            try:
                written = 0
                while written < len(data):
                    written += os.write(descriptor, data[written:])
                os.fsync(descriptor)
            except OSError as failed:
                os.ftruncate(descriptor, size)
                raise _refusal(failed, segment) from failed
        finally:
            os.close(descriptor)
        write_slot(self.directory / HEAD, head)

    def room(self) -> int:
        """Return how many bytes are sure to be writable; only with the lock. Takes what it can get."""
        found = segments(self.directory)
        total = 0
        with suppress(JournalFull):
            self._make_spare()
        for path in (*found[-1:], self.directory / SPARE):
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                size = os.fstat(descriptor).st_size
                if path.name != SPARE and _is_torn(path):
                    continue
                try:
                    able = preallocate(descriptor, self.segment_bytes)
                except OSError:
                    able = True
                left = self.segment_bytes - size
                total += max(0, min(left, taken(descriptor) - size if able else _free(self.directory)))
            finally:
                os.close(descriptor)
        return total

    def _rotate(self, current: Path | None) -> Path:
        """Close the current segment and return the next, made of the spare."""
        if current is not None:
            descriptor = os.open(current, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                release(descriptor)
            finally:
                os.close(descriptor)
        self._make_spare()
        fresh = self.directory / segment_name(1 if current is None else number_of(current) + 1)
        try:
            (self.directory / SPARE).rename(fresh)
            sync_directory(self.directory)
        except OSError as failed:
            raise _refusal(failed, fresh) from failed
        with suppress(JournalFull):  # this segment is whole; `room` tells what is left before the next operation
            self._make_spare()
        return fresh

    def _make_spare(self) -> None:
        """Take the room of a segment, if there is none yet.

        Raises:
            JournalFull: There is not so much.

        """
        path = self.directory / SPARE
        if path.exists():
            return
        descriptor = -1
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            preallocate(descriptor, self.segment_bytes)
            os.fsync(descriptor)
            sync_directory(self.directory)
        except OSError as failed:
            path.unlink(missing_ok=True)
            raise _refusal(failed, path) from failed
        finally:
            if descriptor >= 0:
                os.close(descriptor)


def _make_directory(directory: Path) -> None:
    try:
        if not directory.is_dir():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_directory(directory.parent)
    except OSError as failed:
        raise _refusal(failed, directory) from failed


def _is_torn(segment: Path) -> bool:
    with segment.open("rb") as stream:
        if stream.seek(0, os.SEEK_END) == 0:
            return False
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) != b"\n"


def _free(directory: Path) -> int:
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def _refusal(failed: OSError, path: Path) -> JournalError:
    kind = JournalFull if failed.errno in FULL else JournalError
    return kind(f"{path}: {failed.strerror}")
