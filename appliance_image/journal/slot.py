"""A place on the disk for one sequence number and its hash, overwritten where it stands.

It is one sector: a disk writes it whole or not at all, and overwriting needs no room on a full one.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from appliance_image.journal.space import sync_directory

_SIZE = 512
_HEAD = re.compile(r"([1-9][0-9]{0,15}):([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Head:
    """The newest record of a chain."""

    seq: int
    hash: str

    def __str__(self) -> str:
        """Return ``SEQ:HASH``."""
        return f"{self.seq}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Return what ``SEQ:HASH`` says.

        Raises:
            ValueError: It is not so written.

        """
        found = _HEAD.fullmatch(text)
        if found is None:
            raise ValueError(f"'{text}' is not SEQ:HASH")
        return cls(int(found[1]), found[2])


def read_slot(path: Path) -> Head | None:
    """Return what the place holds, None if there is none.

    Raises:
        ValueError: It is not readable as a head.

    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(_SIZE + 1)
    except FileNotFoundError:
        return None
    return Head.parse(raw.decode("ascii", "replace").strip(" \n\0"))


def write_slot(path: Path, head: Head) -> None:
    """Write the place, durably."""
    fresh = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(descriptor, f"{head}".encode().ljust(_SIZE - 1) + b"\n", 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if fresh:
        sync_directory(path.parent)
