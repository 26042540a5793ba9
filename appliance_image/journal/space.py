"""Room on a disk that is taken before it is needed."""

from __future__ import annotations

import ctypes
import errno
import os

_KEEP_SIZE = 1  # linux/falloc.h
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_UNABLE = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_BLOCK = 512  # the unit of st_blocks (stat(2)), whatever the file system's own is


def preallocate(descriptor: int, size: int) -> bool:
    """Take the blocks of the first `size` bytes of a file and leave its length alone (fallocate(2)).

    Returns:
        Whether this file system can do so.

    Raises:
        OSError: It could, but there is no room.

    """
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    while fallocate(descriptor, _KEEP_SIZE, 0, size) != 0:
        number = ctypes.get_errno()
        if number in _UNABLE:
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return True


def release(descriptor: int) -> None:
    """Give the blocks beyond the end of a file back."""
    os.ftruncate(descriptor, os.fstat(descriptor).st_size)


def taken(descriptor: int) -> int:
    """Return how many bytes the blocks of a file hold."""
    return os.fstat(descriptor).st_blocks * _BLOCK


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
