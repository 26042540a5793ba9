"""A power cut in the middle of a write, several writers, and segments."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest

from appliance_image.journal import Journal, examine, verify
from appliance_image.journal.record import parse
from appliance_image.journal.segments import HEAD, SPARE, segments
from appliance_image.journal.store import LEAST_SEGMENT_BYTES
from tests.docs.source import ROOT
from tests.journal.conftest import Keys, steady


def _events(directory: Path) -> list[str]:
    return [
        parse(raw).event
        for path in segments(directory)
        for raw in path.read_bytes().splitlines(keepends=True)
        if raw.endswith(b"\n")
    ]


def _cuts(tmp_path: Path, key: Path | None) -> tuple[Path, int, int]:
    """Return a journal before an append that `cut` applies to, and the sizes of its segment before and after it."""
    directory = tmp_path / "journal"
    journal = Journal.open(directory, key=key, clock=steady())
    journal.append("boot", {"stage": "rules"})
    before = (directory / "000001.jsonl").stat().st_size
    head = (directory / HEAD).read_bytes()
    journal.append("apply", {"bundle": "ab" * 8})
    after = (directory / "000001.jsonl").stat().st_size
    (directory / HEAD).write_bytes(head)  # it is written after the record
    (directory / SPARE).unlink()
    return directory, before, after


def test_cut_at_every_byte(tmp_path: Path) -> None:
    """Wherever a power cut ends an append, what was torn stays and is recorded, and the journal goes on and holds."""
    directory, before, after = _cuts(tmp_path, None)
    for size in range(before, after + 1):
        cut = shutil.copytree(directory, tmp_path / "cut")
        with (cut / "000001.jsonl").open("r+b") as stream:
            stream.truncate(size)
        torn = (cut / "000001.jsonl").read_bytes()[before:]
        if before < size < after:
            problem = verify(cut)
            assert problem is not None
            assert problem.kind == "torn"
        Journal.open(cut, clock=steady()).append("boot", {"stage": "after"})
        assert verify(cut) is None
        expected = ["apply"] if size == after else ["journal-recovered"] if size > before else []
        assert _events(cut) == ["journal-begin", "boot", *expected, "boot"]
        assert (cut / "000001.jsonl").read_bytes()[before : before + len(torn)] == torn
        if expected == ["journal-recovered"]:
            with (cut / "000001.jsonl").open("ab") as stream:
                stream.write(b"x")
            problem = verify(cut)
            assert problem is not None
            assert problem.kind == "altered"
            assert problem.place.endswith("000001.jsonl:3")
        shutil.rmtree(cut)


def test_cut_with_a_checkpoint(tmp_path: Path, keys: Keys) -> None:
    """The same where a checkpoint follows the record: afterwards everything is sealed again."""
    directory, before, after = _cuts(tmp_path, keys.private)
    for size in range(before, after + 1, 7):
        cut = shutil.copytree(directory, tmp_path / "cut")
        with (cut / "000001.jsonl").open("r+b") as stream:
            stream.truncate(size)
        Journal.open(cut, key=keys.private, clock=steady())
        assert verify(cut, keys.public) is None
        shutil.rmtree(cut)


def test_cut_during_recovery(tmp_path: Path) -> None:
    """The record of a recovery can be torn itself, again and again: all torn ends are told in the end."""
    directory, _, after = _cuts(tmp_path, None)
    with (directory / "000001.jsonl").open("r+b") as stream:
        stream.truncate(after - 5)
    for number in range(2, 5):
        trial = shutil.copytree(directory, tmp_path / "trial")
        Journal.open(trial, clock=steady())
        whole = (trial / f"00000{number}.jsonl").read_bytes()
        shutil.rmtree(trial)
        (directory / f"00000{number}.jsonl").write_bytes(whole[: len(whole) // number])
    Journal.open(directory, clock=steady())
    assert verify(directory) is None
    (record,) = [parse(raw) for path in segments(directory)[-1:] for raw in path.read_bytes().splitlines(keepends=True)]
    torn = record.fields["torn"]
    assert isinstance(torn, list)
    assert len(torn) == 4


def test_cut_of_the_beginning(tmp_path: Path) -> None:
    """A journal whose very first record was torn begins after it."""
    whole = tmp_path / "whole"
    Journal.open(whole, clock=steady())
    size = (whole / "000001.jsonl").stat().st_size
    for cut in (0, 1, size // 2, size - 1):
        directory = tmp_path / f"cut{cut}"
        directory.mkdir()
        (directory / "000001.jsonl").write_bytes((whole / "000001.jsonl").read_bytes()[:cut])
        Journal.open(directory, clock=steady())
        assert verify(directory) is None
        assert _events(directory) == ["journal-begin"]


def test_unsealed_after_a_cut(tmp_path: Path, keys: Keys) -> None:
    """Records that had no checkpoint yet get one when the journal is opened again."""
    directory = tmp_path / "journal"
    Journal.open(directory, clock=steady()).append("boot")
    problem = verify(directory, keys.public)
    assert problem is not None
    assert problem.kind == "unsealed"
    Journal.open(directory, key=keys.private, clock=steady())
    assert verify(directory, keys.public) is None


def test_segments_are_bounded(sealed: Path) -> None:
    """No segment is longer than it may be, and a closed one holds no room any more."""
    for path in segments(sealed):
        assert path.stat().st_size <= LEAST_SEGMENT_BYTES
    for path in segments(sealed)[:-1]:
        assert path.stat().st_blocks * 512 < path.stat().st_size + 3 * 4096


_WRITER = """
import sys
from pathlib import Path
from appliance_image.journal import Journal
journal = Journal.open(Path(sys.argv[1]), segment_bytes=262144)
for number in range(40):
    journal.append("apply", {"writer": int(sys.argv[2]), "number": number, "text": "x" * 3000})
"""


def test_writers_do_not_interleave(tmp_path: Path) -> None:
    """Four processes, and threads of this one, write one chain; nobody's records are lost or out of order."""
    directory = tmp_path / "journal"
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(directory), str(number)], cwd=ROOT) for number in range(4)
    ]
    journal = Journal.open(directory, segment_bytes=LEAST_SEGMENT_BYTES)

    def write(writer: int) -> None:
        for number in range(10):
            journal.append("apply", {"writer": writer, "number": number})

    threads = [Thread(target=write, args=(writer,)) for writer in (10, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [writer.wait(timeout=60) for writer in writers] == [0] * 4
    report = examine(directory)
    assert report.problem is None
    assert report.records == 1 + 4 * 40 + 2 * 10
    for writer in (0, 1, 2, 3, 10, 11):
        numbers = [
            record.fields["number"]
            for path in segments(directory)
            for record in map(parse, path.read_bytes().splitlines(keepends=True))
            if record.fields.get("writer") == writer
        ]
        assert numbers == list(range(len(numbers)))


def test_killed_writer(tmp_path: Path) -> None:
    """A writer that is killed leaves no lock behind, and no record whose append had returned is missing."""
    directory = tmp_path / "journal"
    code = _WRITER.replace("range(40)", "range(100000)").replace(
        '"x" * 3000})', '"x" * 30}); print(number, flush=True)'
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(directory), "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) >= 50:
                break
        writer.kill()
        reached = max(int(line) for line in [line, *writer.stdout] if line.endswith("\n"))
    Journal.open(directory).append("boot")
    assert verify(directory) is None
    numbers = [
        parse(raw).fields.get("number")
        for path in segments(directory)
        for raw in path.read_bytes().splitlines(keepends=True)
        if raw.endswith(b"\n")
    ]
    assert reached in numbers


def test_link_instead_of_a_segment(tmp_path: Path) -> None:
    """A link where a segment belongs is not followed."""
    directory = tmp_path / "journal"
    Journal.open(directory)
    segment = directory / "000001.jsonl"
    segment.rename(tmp_path / "elsewhere")
    segment.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        Journal.open(directory).append("boot")
    problem = verify(directory)
    assert problem is not None
    assert problem.kind == "foreign"
