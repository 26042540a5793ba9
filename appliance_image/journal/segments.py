"""The files of a journal: its segments, in order, and the lines in them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from appliance_image.journal.record import MOST_BYTES

SUFFIX = ".jsonl"
HEAD, LOCK, SPARE, REPLICA = "head", "lock", "spare", "replica"
"""Files beside the segments: the newest record; who writes; the room kept; a mark that records came from elsewhere."""
_NAME = re.compile(r"[0-9]{6}\.jsonl")


@dataclass(frozen=True, slots=True)
class Line:
    """Some bytes of a segment."""

    path: Path
    number: int
    """From 1."""
    offset: int
    raw: bytes
    """With its newline; only a line that a power cut tore has none."""

    @property
    def torn(self) -> bool:
        """Whether its end is missing."""
        return not self.raw.endswith(b"\n")

    def describe(self) -> str:
        """Return what the record of a recovery says of a torn line."""
        digest = hashlib.sha256(self.raw).hexdigest()
        return f"{self.path.name} offset {self.offset} bytes {len(self.raw)} sha256 {digest}"


def segment_name(number: int) -> str:
    """Return the name of a segment, numbered from 1."""
    return f"{number:06}{SUFFIX}"


def segments(directory: Path) -> list[Path]:
    """Return the segments of a journal, oldest first."""
    return sorted(path for path in directory.iterdir() if _NAME.fullmatch(path.name))


def number_of(segment: Path) -> int:
    """Return the number of a segment."""
    return int(segment.name.removesuffix(SUFFIX))


def lines(path: Path) -> Iterator[Line]:
    """Yield the lines of a segment."""
    offset = 0
    with path.open("rb") as stream:
        # A longer line is no record's; nothing is made of its parts but that.
        for number, raw in enumerate(iter(lambda: stream.readline(MOST_BYTES + 1), b""), start=1):
            yield Line(path, number, offset, raw)
            offset += len(raw)
