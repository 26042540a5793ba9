"""Usage records (使用記録) that the agent keeps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from appliance_image.agent import durable
from appliance_image.agent.errors import AgentError
from appliance_image.agent.root import Root
from appliance_image.journal import Journal, JournalError, JournalFull
from appliance_image.journal.keys import new_key, public_key
from appliance_image.journal.segments import HEAD
from appliance_image.journal.slot import read_slot

KEY = "checkpoint.pem"
"""The key that seals the records; it is made on the appliance and never leaves it."""

PUBLIC_KEY = "checkpoint.pub"
"""With which others can tell that the records are this appliance's."""

_SCARCE = 0.25
"""Of all that the journal can have: with less it is time to look after it."""

Field = str | int | bool | list[str] | None


def record(root: Root, event: str, **fields: Field) -> None:
    """Append a record to the journal.

    Raises:
        AgentError: It cannot be kept.

    """
    try:
        _journal(root).append(event, fields)
    except JournalFull as full:
        raise AgentError("journal-full", str(full)) from full
    except (JournalError, OSError, ValueError) as failed:
        raise AgentError("journal", f"the journal cannot be written: {failed}") from failed


def reserve(root: Root, records: int) -> None:
    """Make sure that there is room for records, before something begins that must not go unrecorded.

    Raises:
        AgentError: There is none: do not begin.

    """
    try:
        _journal(root).reserve(records)
    except JournalFull as full:
        raise AgentError("journal-full", f"nothing is begun that cannot be recorded: {full}") from full
    except (JournalError, OSError) as failed:
        raise AgentError("journal", f"the journal cannot be written: {failed}") from failed


@dataclass(frozen=True, slots=True)
class Kept:
    """The journal, and how long its disk lasts."""

    head: str | None
    """The newest record, ``SEQ:HASH``; None if nothing can be read that names it."""
    size: int
    """Bytes of all files."""
    free: int
    """Bytes of its disk that are left."""
    due: bool
    """Whether little is left. When nothing is, nothing is begun any more, and a start does not end in forwarding."""


def kept(root: Root) -> Kept:
    """Return how the journal stands.

    Raises:
        OSError: There is none, or it cannot be looked at.

    """
    try:
        head = read_slot(root.journal / HEAD)
    except ValueError:
        head = None
    size = sum(each.stat().st_size for each in root.journal.iterdir())
    disk = os.statvfs(root.journal)
    free = disk.f_bavail * disk.f_frsize
    return Kept(None if head is None else str(head), size, free, free < _SCARCE * (size + free))


def _journal(root: Root) -> Journal:
    return Journal.open(root.journal, key=_key(root))


def _key(root: Root) -> Path:
    path = root.identity / KEY
    if not path.exists():
        fresh = path.with_name(f"{KEY}.new")
        fresh.unlink(missing_ok=True)
        new_key(fresh)
        durable.write(root.identity / PUBLIC_KEY, public_key(fresh), 0o644)
        durable.put(fresh, path)
    return path
