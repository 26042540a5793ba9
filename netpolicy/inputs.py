"""What others wrote is read up to a bound: plain files only, never a link that was not asked for, never without end."""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20


def open_regular(path: str | Path, *, follow: bool = True, directory: int | None = None) -> int:
    """Return a descriptor of a regular file, for reading; the caller closes it.

    Nothing is waited for: a FIFO without a writer, a socket or a device is refused as what it is.

    Args:
        path: Of the file.
        follow: Whether it may be a symbolic link; what stands on a medium may not.
        directory: A descriptor of the directory that `path` is in; none for the working directory.

    Raises:
        OSError: There is none, it cannot be opened, or is anything else; `strerror` says so.

    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags, dir_fd=directory)
    except OSError as failed:
        if failed.errno == errno.ELOOP and not follow:
            raise OSError(errno.ELOOP, "it is a symbolic link, and no regular file", str(path)) from None
        if failed.errno in {errno.ENXIO, errno.ENODEV}:
            raise OSError(failed.errno, "it is a socket or a device, and no regular file", str(path)) from None
        raise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "it is no regular file", str(path))


def read_regular(
    path: str | Path, most: int, *, follow: bool = True, directory: int | None = None, seconds: float | None = None
) -> bytes:
    """Return the bytes of a regular file, of which no more than `most` and one are ever in memory.

    Args:
        path: Of the file.
        most: The bytes it may have.
        follow: See :func:`open_regular`.
        directory: See :func:`open_regular`.
        seconds: It must be read in so many.

    Raises:
        OSError: See :func:`open_regular`; or it is larger, or grows (``EFBIG``), or took longer (``ETIMEDOUT``).

    """
    deadline = None if seconds is None else time.monotonic() + seconds
    descriptor = open_regular(path, follow=follow, directory=directory)
    found = bytearray()
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        if os.fstat(descriptor).st_size > most:
            raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(path))
        while part := stream.read(min(_CHUNK, most + 1 - len(found))):
            found += part
            if len(found) > most:
                raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(path))
            if deadline is not None and time.monotonic() > deadline:
                raise OSError(errno.ETIMEDOUT, f"it could not be read in {seconds:.0f} s", str(path))
    return bytes(found)


def read_document(path: str | Path, most: int, *, follow: bool = True) -> Any:
    """Return the JSON (RFC 8259) in a regular file.

    Raises:
        OSError: See :func:`read_regular`.
        ValueError: It is no JSON, or none in UTF-8, or nests deeper than can be read.

    """
    return parse_document(read_regular(path, most, follow=follow))


def parse_document(content: str | bytes) -> Any:
    """Return the JSON in a text whose length is bounded.

    Raises:
        ValueError: It is no JSON, nests deeper than can be read, or holds a number of too many digits.

    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it nests too deep") from None
