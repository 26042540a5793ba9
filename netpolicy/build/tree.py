"""A directory that is replaced as a whole."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from netpolicy.build.manifest import MANIFEST

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


class BuildError(Exception):
    """The output directory is not one that may be replaced."""


def replace_tree(out: Path, files: Mapping[str, str | bytes], marker: str = MANIFEST) -> None:
    """Make `out` a directory that holds exactly `files` (UTF-8, by relative path), in one step.

    Everything is written and synced beside `out` first and then exchanged with it, so that at every instant `out` is
    either the old tree or the new one.

    Args:
        out: The directory.
        files: Text is written as UTF-8.
        marker: The file by which a tree that may be replaced is known.

    Raises:
        BuildError: `out` exists and is neither an empty directory nor a build tree.
        OSError: The parent of `out` cannot be written.

    """
    out = Path(os.path.abspath(out))  # noqa: PTH100 - resolve() would follow a link at `out` and replace its target
    refuse_foreign(out, marker)
    out.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        fresh = stage / "tree"
        for path, content in files.items():
            target = fresh / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as stream:
                stream.write(content.encode() if isinstance(content, str) else content)
                stream.flush()
                os.fsync(stream.fileno())
        if out.exists():
            _exchange(fresh, out)
        else:
            fresh.rename(out)
        _sync_directory(out.parent)
    finally:
        shutil.rmtree(stage)


def replace_file(path: Path, content: str | bytes) -> None:
    """Write a file in one step; text as UTF-8.

    Raises:
        OSError: It cannot be written; then it is what it was.

    """
    descriptor, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(fresh).chmod(0o644)
        Path(fresh).replace(path)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def refuse_foreign(out: Path, marker: str = MANIFEST) -> None:
    """Raise BuildError if `out` exists and is neither an empty directory nor a tree that holds `marker`."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise BuildError(f"{out} is not a directory")
    if out.is_dir() and not (out / marker).is_file() and any(out.iterdir()):
        raise BuildError(f"{out} is not empty and holds no {marker}: it is not what would be replaced")


def _exchange(fresh: Path, out: Path) -> None:
    """Swap two directories atomically (renameat2(2)); where a system cannot, in two renames that follow each other."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None:
        if renameat2(_AT_FDCWD, os.fsencode(fresh), _AT_FDCWD, os.fsencode(out), _RENAME_EXCHANGE) == 0:
            return
        number = ctypes.get_errno()
        if number not in {errno.EINVAL, errno.ENOSYS}:
            raise OSError(number, os.strerror(number), str(out))
    old = fresh.with_name("old")
    out.rename(old)
    fresh.rename(out)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
