"""Writing that a power cut cannot halve: every step that reaches the disk goes through this module.

A file is written beside its place, synced, renamed into it, and its directory synced (rename(2), fsync(2)): after a cut
it is the old one or the new one. Tests cut at each step through :data:`before`.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable
from pathlib import Path


class Step(enum.StrEnum):
    """What is about to be done."""

    MAKE = "make"
    """A directory."""
    WRITE = "write"
    """A file beside its place."""
    SYNC = "sync"
    """Its content to the disk."""
    RENAME = "rename"
    """It takes its place."""
    REMOVE = "remove"
    """It goes."""
    SYNC_DIRECTORY = "sync-directory"
    """Names to the disk."""


def _nothing(_step: Step, _path: Path) -> None:
    pass


before: Callable[[Step, Path], None] = _nothing
"""Called before each step with the path it is about; tests put a power cut here."""

_NEW = ".new"


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Have `content` at `path`, whole.

    Raises:
        OSError: It is not, and what was there still is.

    """
    fresh = path.with_name(f"{path.name}{_NEW}")
    before(Step.WRITE, fresh)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(descriptor, mode)
        stream.write(content)
        stream.flush()
        before(Step.SYNC, fresh)
        os.fsync(descriptor)
    put(fresh, path)


def put(fresh: Path, path: Path) -> None:
    """Have a file that was synced at another place of the same directory.

    Raises:
        OSError: It is not.

    """
    before(Step.RENAME, path)
    fresh.replace(path)
    sync_directory(path.parent)


def remove(path: Path) -> None:
    """Have nothing at `path`.

    Raises:
        OSError: It is still there.

    """
    if path.exists():
        before(Step.REMOVE, path)
        path.unlink()
        sync_directory(path.parent)


def make(directory: Path, mode: int = 0o700) -> None:
    """Have a directory.

    Raises:
        OSError: It cannot be made.

    """
    if not directory.is_dir():
        before(Step.MAKE, directory)
        directory.mkdir(mode=mode)
        sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Have the names in a directory on the disk.

    Raises:
        OSError: They are not.

    """
    before(Step.SYNC_DIRECTORY, directory)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_left_over(path: Path) -> bool:
    """Tell whether a file is one that a cut has left beside its place."""
    return path.name.endswith(_NEW)
