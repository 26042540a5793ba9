"""A copy of another host's journal, held against its chain as it comes."""

from __future__ import annotations

import os
from pathlib import Path

from appliance_image.journal import checkpoint
from appliance_image.journal.errors import JournalError
from appliance_image.journal.read import records
from appliance_image.journal.record import Record
from appliance_image.journal.segments import REPLICA
from appliance_image.journal.slot import Head
from appliance_image.journal.space import sync_directory
from appliance_image.journal.store import SEGMENT_BYTES, Store, Tail

_ASIDE = "torn"


class Replica:
    """What has been received of one journal."""

    def __init__(self, directory: Path, key: bytes | None, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._store = Store(directory, segment_bytes)
        self._keys = checkpoint.by_fingerprint(key) if key is not None else None
        mark = directory / REPLICA
        if not mark.exists():
            mark.touch(mode=0o600)
            sync_directory(directory)

    def head(self) -> Head:
        """Return the newest record, 0 if there is none."""
        with self._store.locked():
            return self._tail().head

    def take(self, record: Record) -> None:
        """Store a record durably; one that is there already is taken once.

        Raises:
            JournalError: It does not follow what is there, is not signed as it must be, or there is no room.

        """
        with self._store.locked():
            tail = self._tail()
            if record.seq <= tail.head.seq:
                have = next(records(self._store.directory, record.seq), None)
                if have != record:
                    raise JournalError(f"record {record.seq} is another one than was received before")
                return
            if record.seq != tail.head.seq + 1:
                raise JournalError(f"record {record.seq} comes where record {tail.head.seq + 1} belongs")
            if record.previous != tail.head.hash:
                raise JournalError(f"record {record.seq} does not follow record {tail.head}")
            if (
                self._keys is not None
                and record.event == checkpoint.EVENT
                and not checkpoint.is_sealed(record, self._keys)
            ):
                raise JournalError(f"checkpoint {record.seq} is not signed by the journal's key")
            self._store.write(tail, record.line(), Head(record.seq, record.hash))

    def _tail(self) -> Tail:
        tail = self._store.tail()
        if tail.damage is not None:
            raise JournalError(f"the collector's copy is damaged: {tail.damage}")
        if not tail.torn:
            return tail
        # It was not acknowledged and comes again, so that it may go from the chain; the bytes are kept all the same.
        aside = self._store.directory / _ASIDE
        aside.mkdir(mode=0o700, exist_ok=True)
        for line in tail.torn:
            with (aside / f"{line.path.stem}-{line.offset}").open("wb") as stream:
                stream.write(line.raw)
                stream.flush()
                os.fsync(stream.fileno())
            sync_directory(aside)
            os.truncate(line.path, line.offset)
        return self._store.tail()
