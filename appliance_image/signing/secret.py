"""PINs and key files that only their owner may read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from appliance_image.bundle.refused import Code, Refused

_MOST_BYTES = 64 << 10


def read_secret(path: Path) -> bytes:
    """Return the content of a file that is its reader's alone.

    Raises:
        Refused: It is somebody else's, or others may read or write it (pin-exposed).
        OSError: It cannot be read.

    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise Refused(Code.PIN_EXPOSED, f"{path} must be a file of yours that others cannot read: chmod 600")
        return stream.read(_MOST_BYTES)


def read_pin(path: Path) -> str:
    """Return the PIN in a file, which may end with a newline; see :func:`read_secret`."""
    return read_secret(path).decode().removesuffix("\n").removesuffix("\r")
