"""The journal as those use it who have something to record."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from appliance_image.journal import checkpoint
from appliance_image.journal.checkpoint import Sealer
from appliance_image.journal.errors import JournalFull
from appliance_image.journal.record import MOST_BYTES, Fields, Record, make
from appliance_image.journal.slot import Head
from appliance_image.journal.store import SEGMENT_BYTES, Store, Tail

BEGIN, RECOVERED, DAMAGED, FULL = "journal-begin", "journal-recovered", "journal-damaged", "journal-full"
"""Events of the journal's own."""
_MARGIN = 2 * MOST_BYTES
"""Room for what the journal itself has to say of a full disk."""


class Journal:
    """An append-only journal in a directory. Any number of processes and threads may have it open."""

    def __init__(self, store: Store, sealer: Sealer | None, every: int, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._sealer = sealer
        self._every = every
        self._clock = clock

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        key: Path | None = None,
        every: int = 1,
        segment_bytes: int = SEGMENT_BYTES,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> Self:
        """Open a journal, begin it if there is none, and record what a power cut or a stranger did to it.

        Args:
            directory: Made if it is not there.
            key: Private Ed25519 key (PEM file) that signs checkpoints; None for a journal without them.
            every: A checkpoint follows so many records in the same write; 0 for only those asked for. What stands after
                the newest checkpoint is not sealed yet.
            segment_bytes: Files do not become longer. Twice as much is taken from the disk.
            clock: The time.

        Raises:
            JournalFull: There is no room for it.
            JournalError: The directory or the key cannot be used.

        """
        sealer = Sealer(key) if key is not None else None
        journal = cls(Store(directory, segment_bytes), sealer, every, clock)
        with journal._store.locked():
            tail = journal._sound_tail()
            if sealer is not None and every == 1 and not _is_checkpoint(tail):
                journal._seal(tail)
        return journal

    @property
    def directory(self) -> Path:
        """Where it is."""
        return self._store.directory

    def append(self, event: str, fields: Fields | None = None) -> Record:
        """Record that something happened; when this returns, the record is on the disk.

        Raises:
            JournalFull: There is no room; nothing was written.
            JournalError: The disk failed; whether the record is on it is not known.
            ValueError: The event or a field is not one that a record can have.

        """
        with self._store.locked():
            return self._append(self._sound_tail(), event, fields or {})

    def reserve(self, records: int = 8) -> None:
        """Make sure that so many records can be written, before an operation begins that must not go unrecorded.

        Raises:
            JournalFull: There is not so much room: do not begin. The journal says so once.

        """
        # A record that does not fit leaves its room at a segment's end unused, and a checkpoint may follow each.
        needed = (2 * records + 2) * MOST_BYTES + _MARGIN
        if needed > self._store.segment_bytes:
            raise ValueError(f"{records} records are more than a segment is sure to hold")
        with self._store.locked():
            tail = self._sound_tail()
            room = self._store.room()
            if room >= needed:
                return
            if tail.recent[-1:] != (FULL,) and tail.recent != (FULL, checkpoint.EVENT):
                with suppress(JournalFull):
                    self._append(tail, FULL, {"bytes": room, "needed": needed})
            raise JournalFull(f"{self.directory}: no room for {records} records ({room} of {needed} bytes)")

    def checkpoint(self) -> Record | None:
        """Seal all records so far; return the checkpoint, or None where there is no key or all is sealed."""
        with self._store.locked():
            tail = self._sound_tail()
            return None if _is_checkpoint(tail) else self._seal(tail)

    def _sound_tail(self) -> Tail:
        """Return where the journal ends, after recording what happened to it."""
        tail = self._store.tail()
        torn = [line.describe() for line in tail.torn]
        fields: Fields = {"torn": torn} if torn else {}
        if tail.damage is not None:
            self._append(tail, DAMAGED, {"found": tail.damage, **fields})
        elif tail.head.seq == 0:
            identity: Fields = {"format": 1, "id": secrets.token_hex(16), "host": socket.gethostname()}
            self._append(tail, BEGIN, {**identity, **fields})
        elif torn:
            self._append(tail, RECOVERED, fields)
        else:
            return tail
        return self._store.tail()

    def _append(self, tail: Tail, event: str, fields: Fields) -> Record:
        now = self._clock()
        record = make(tail.head.seq + 1, now, event, fields, tail.head.hash)
        data, newest = record.line(), record
        if self._sealer is not None and self._every and record.seq % self._every == 0:
            newest = self._sealer.seal(record.seq, record.hash, now)
            data += newest.line()
        self._store.write(tail, data, Head(newest.seq, newest.hash))
        return record

    def _seal(self, tail: Tail) -> Record | None:
        if self._sealer is None:
            return None
        record = self._sealer.seal(tail.head.seq, tail.head.hash, self._clock())
        self._store.write(tail, record.line(), Head(record.seq, record.hash))
        return record


def _is_checkpoint(tail: Tail) -> bool:
    return tail.last is not None and tail.last.event == checkpoint.EVENT
