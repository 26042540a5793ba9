"""A disk without room: an operation is refused before it begins, and no record is lost."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance_image.journal import Journal, JournalFull, examine, verify
from appliance_image.journal.record import parse
from appliance_image.journal.segments import HEAD, SPARE, segments
from appliance_image.journal.store import LEAST_SEGMENT_BYTES
from tests.journal.conftest import Keys

_TEXT = {"text": "x" * 4000}


@contextmanager
def _mounted(arguments: list[str], directory: Path) -> Iterator[Path]:
    directory.mkdir()
    subprocess.run(["mount", *arguments, str(directory)], check=True, timeout=30)
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True, timeout=30)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 1 MiB."""
    with _mounted(["-t", "tmpfs", "-o", "size=1m", "none"], tmp_path / "disk") as directory:
        yield directory


def _fill(directory: Path, name: str = "filler") -> None:
    """Write until not one more byte fits."""
    with (directory / name).open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space"):  # noqa: PT012
        for size in (4096, 512, 1):
            try:
                while True:
                    stream.write(b"\0" * size)
            except OSError:
                if size == 1:
                    raise


def _events(directory: Path) -> list[str]:
    return [parse(raw).event for path in segments(directory) for raw in path.read_bytes().splitlines(keepends=True)]


def test_full_disk(disk: Path, keys: Keys) -> None:
    """On a full disk what was reserved can be written, then an operation is refused; all records are there."""
    journal = Journal.open(disk / "journal", key=keys.private, segment_bytes=LEAST_SEGMENT_BYTES)
    journal.reserve()
    _fill(disk)
    written = 0
    with pytest.raises(JournalFull):  # noqa: PT012
        while True:
            journal.reserve()
            for _ in range(8):
                journal.append("apply", _TEXT)  # never raises after reserve()
                written += 1
    assert written > 64
    with pytest.raises(JournalFull, match="no room for 8 records"):
        journal.reserve()
    events = _events(disk / "journal")
    assert events.count("apply") == written
    assert events.count("journal-full") == 1
    assert verify(disk / "journal", keys.public) is None
    # What comes without asking still finds the margin, until that is gone: then it is told, and nothing is torn.
    with pytest.raises(JournalFull):  # noqa: PT012
        while True:
            journal.append("login", _TEXT)
            written += 1
    assert len([event for event in _events(disk / "journal") if event in {"apply", "login"}]) == written
    assert verify(disk / "journal", keys.public) is None
    (disk / "filler").unlink()
    journal.reserve()
    journal.append("boot")
    assert verify(disk / "journal", keys.public) is None


def test_full_before_it_begins(disk: Path) -> None:
    """A journal that has no room to begin says so, and leaves nothing half."""
    (disk / "journal").mkdir()
    _fill(disk)
    with pytest.raises(JournalFull):
        Journal.open(disk / "journal", segment_bytes=LEAST_SEGMENT_BYTES)
    (disk / "filler").unlink()
    Journal.open(disk / "journal", segment_bytes=LEAST_SEGMENT_BYTES)
    assert verify(disk / "journal") is None


def test_torn_on_a_full_disk(disk: Path) -> None:
    """A power cut and a full disk together: the torn end stays and its record finds the room that was kept."""
    directory = disk / "journal"
    journal = Journal.open(directory, segment_bytes=LEAST_SEGMENT_BYTES)
    head = (directory / HEAD).read_bytes()
    journal.append("apply", _TEXT)
    (directory / HEAD).write_bytes(head)  # it is written after the record
    _fill(disk)
    segment = directory / "000001.jsonl"
    with segment.open("r+b") as stream:
        stream.truncate(segment.stat().st_size - 100)
    Journal.open(directory, segment_bytes=LEAST_SEGMENT_BYTES)
    (record,) = map(parse, segments(directory)[-1].read_bytes().splitlines(keepends=True))
    assert record.event == "journal-recovered"
    assert verify(directory) is None


def test_room_is_taken(disk: Path) -> None:
    """The room is really taken: the disk has so much less."""
    before = shutil.disk_usage(disk).free
    Journal.open(disk / "journal", segment_bytes=LEAST_SEGMENT_BYTES)
    assert before - shutil.disk_usage(disk).free >= 2 * LEAST_SEGMENT_BYTES
    assert (disk / "journal" / SPARE).stat().st_size == 0


def test_full_ext4(tmp_path: Path) -> None:
    """The same on ext4, the file system of the appliance."""
    image = tmp_path / "image"
    with image.open("wb") as stream:
        stream.truncate(4 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m0", str(image)], check=True, timeout=30)
    with _mounted(["-o", "loop", str(image)], tmp_path / "disk") as disk:
        journal = Journal.open(disk / "journal", segment_bytes=LEAST_SEGMENT_BYTES)
        _fill(disk)
        written = 0
        with pytest.raises(JournalFull):  # noqa: PT012
            while True:
                journal.reserve()
                for _ in range(8):
                    journal.append("apply", _TEXT)
                    written += 1
        assert written > 64
        report = examine(disk / "journal")
        assert report.problem is None
        assert _events(disk / "journal").count("apply") == written
