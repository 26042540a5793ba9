"""Usage records (使用記録) that the agent keeps."""

from __future__ import annotations

from pathlib import Path

from appliance_image.agent import durable
from appliance_image.agent.errors import AgentError
from appliance_image.agent.root import Root
from appliance_image.journal import Journal, JournalError, JournalFull
from appliance_image.journal.keys import new_key, public_key

KEY = "checkpoint.pem"
"""The key that seals the records; it is made on the appliance and never leaves it."""

PUBLIC_KEY = "checkpoint.pub"
"""With which others can tell that the records are this appliance's."""

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
