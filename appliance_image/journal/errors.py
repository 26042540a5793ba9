"""What a journal refuses."""

from __future__ import annotations


class JournalError(Exception):
    """The journal cannot be used as asked; its text says why."""


class JournalFull(JournalError):  # noqa: N818 - a state of the disk, and the name that callers were given
    """There is no room that a record is sure of: the operation must not begin."""
