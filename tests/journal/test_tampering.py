"""Whatever is done to a journal's files is noticed, and named."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance_image.journal import Journal, Record, examine, verify
from appliance_image.journal.record import make, parse
from appliance_image.journal.segments import HEAD, SPARE, segments
from appliance_image.journal.slot import Head, write_slot
from tests.journal.conftest import Keys, make_keys, steady

Lines = list[tuple[str, bytes]]
"""File and line, in the order of the journal."""
TAMPERINGS = 200


def _read(directory: Path) -> Lines:
    return [(path.name, raw) for path in segments(directory) for raw in path.read_bytes().splitlines(keepends=True)]


def _write(directory: Path, lines: Lines) -> None:
    for path in segments(directory):
        path.write_bytes(b"".join(raw for name, raw in lines if name == path.name))


def _place(directory: Path, lines: Lines, index: int) -> str:
    name = lines[index][0]
    return f"{directory / name}:{1 + sum(1 for other, _ in lines[:index] if other == name)}"


def _edit(lines: Lines, chance: random.Random) -> int:
    """Change one byte, whichever."""
    index = chance.randrange(len(lines))
    name, raw = lines[index]
    at = chance.randrange(len(raw) - 1)
    other = bytes([(raw[at] + chance.randrange(1, 256)) % 256])
    lines[index] = (name, raw[:at] + other + raw[at + 1 :])
    return index


def _rehash(lines: Lines, chance: random.Random) -> int:
    """Change a record and give it the hash that fits."""
    index = chance.randrange(1, len(lines) - 1)
    name, raw = lines[index]
    old = parse(raw)
    changed = make(old.seq, datetime(2020, 1, 1, tzinfo=UTC), old.event, {**old.fields, "number": 999}, old.previous)
    lines[index] = (name, changed.line())
    return index


def _delete(lines: Lines, chance: random.Random) -> int:
    """Take out some neighbours."""
    number = chance.choice([1, 1, 2, 10])
    index = chance.randrange(len(lines) - number)
    del lines[index : index + number]
    return index


def _truncate(lines: Lines, chance: random.Random) -> int:
    """Take away the end."""
    index = chance.randrange(1, len(lines))
    del lines[index:]
    return index - 1


def _swap(lines: Lines, chance: random.Random) -> int:
    """Exchange two records."""
    first, second = sorted(chance.sample(range(len(lines)), 2))
    (one, a), (two, b) = lines[first], lines[second]
    lines[first], lines[second] = (one, b), (two, a)
    return first


def _move(lines: Lines, chance: random.Random) -> int:
    """Put a record elsewhere, in the file of its new neighbour."""
    index, to = chance.sample(range(len(lines)), 2)
    raw = lines.pop(index)[1]
    lines.insert(to, (lines[min(to, len(lines) - 1)][0], raw))
    return min(index, to)


def _repeat(lines: Lines, chance: random.Random) -> int:
    """Write a record twice."""
    index = chance.randrange(len(lines))
    lines.insert(index + 1, lines[index])
    return index + 1


_KINDS: tuple[Callable[[Lines, random.Random], int], ...] = (_edit, _rehash, _delete, _truncate, _swap, _move, _repeat)


@pytest.mark.parametrize("seed", range(TAMPERINGS))
def test_tampering_is_named(seed: int, sealed: Path, tmp_path: Path) -> None:
    """Each of 200 random edits, deletions, truncations and reorderings is detected, at the first line it touches."""
    chance = random.Random(seed)  # noqa: S311 - the same in every run
    directory = shutil.copytree(sealed, tmp_path / "journal")
    lines = _read(directory)
    kind = _KINDS[seed % len(_KINDS)]
    index = kind(lines, chance)
    _write(directory, lines)
    problem = verify(directory)
    assert problem is not None, kind.__name__
    assert problem.place == _place(directory, lines, index), problem


def test_untouched(sealed: Path, keys: Keys) -> None:
    """A journal that nobody touched holds, with its key, and its head is known in it."""
    report = examine(sealed, keys=[keys.public])
    assert report.problem is None
    assert report.head is not None
    assert report.sealed == report.head.seq - 1
    assert verify(sealed, keys.public, report.head) is None


def _forge(directory: Path, keep: int, last: int) -> None:
    """Replace all after record `keep` by other records up to `last` that fit each other, as one without the key can."""
    lines = _read(directory)[:keep]
    record = parse(lines[-1][1])
    while record.seq < last:
        record = make(record.seq + 1, datetime(2026, 4, 1, tzinfo=UTC), "apply", {"text": "nothing"}, record.hash)
        lines.append((lines[-1][0], record.line()))
    _write(directory, lines)
    for path in segments(directory):
        if not path.stat().st_size:
            path.unlink()
    write_slot(directory / HEAD, Head(record.seq, record.hash))


@pytest.mark.parametrize("keep", [1, 40, 100, 149])
def test_forged_tail_is_unsealed(keep: int, copy: Path, keys: Keys) -> None:
    """A tail that was replaced by one with right hashes holds by itself, but not against the key."""
    last = len(_read(copy))
    _forge(copy, keep, last)
    assert verify(copy) is None
    problem = verify(copy, keys.public)
    assert problem is not None
    assert problem.kind == "unsealed"


def test_forged_tail_with_a_forged_checkpoint(copy: Path, keys: Keys, tmp_path: Path) -> None:
    """A checkpoint by another key seals nothing."""
    other = make_keys(tmp_path, "other")
    _forge(copy, 40, 100)
    Journal.open(copy, key=other.private, clock=steady()).checkpoint()
    problem = verify(copy, keys.public)
    assert problem is not None
    assert problem.kind == "forged"
    assert verify(copy) is None


def _cut(directory: Path, keep: int) -> None:
    _write(directory, _read(directory)[:keep])
    for path in segments(directory):
        if not path.stat().st_size:
            path.unlink()


def test_truncation_is_known_by_the_head(copy: Path, keys: Keys) -> None:
    """Cut back to a checkpoint, with the file that names the head set back as well, only a known head tells."""
    known = examine(copy).head
    lines = _read(copy)
    keep = max(i for i, (_, raw) in enumerate(lines[:-1]) if parse(raw).event == "checkpoint") + 1
    _cut(copy, keep)
    problem = verify(copy, keys.public)
    assert problem is not None
    assert problem.kind == "truncated"
    last = parse(lines[keep - 1][1])
    write_slot(copy / HEAD, Head(last.seq, last.hash))
    assert verify(copy, keys.public) is None
    problem = verify(copy, keys.public, known)
    assert problem is not None
    assert problem.kind == "truncated"


def test_truncation_between_checkpoints(copy: Path, keys: Keys) -> None:
    """Cut anywhere else, the key tells, too."""
    _cut(copy, 43)
    last = parse(_read(copy)[-1][1])
    write_slot(copy / HEAD, Head(last.seq, last.hash))
    problem = verify(copy, keys.public)
    assert problem is not None
    assert problem.kind == "unsealed"


def test_another_history(copy: Path) -> None:
    """A known head with another hash is an altered record."""
    problem = verify(copy, head=Head(5, "1" * 64))
    assert problem is not None
    assert (problem.kind, problem.place) == ("altered", f"{copy / '000001.jsonl'}:5")


@pytest.mark.parametrize(("name", "kind"), [("000001", "missing"), ("000002", "missing"), ("000003", "truncated")])
def test_segment_removed(name: str, kind: str, copy: Path) -> None:
    """A segment that is gone is named, or the end of the one before it."""
    (copy / f"{name}.jsonl").unlink()
    problem = verify(copy)
    assert problem is not None
    assert problem.kind == kind


def test_foreign_segment(copy: Path) -> None:
    """A file that looks like a segment but is none is named."""
    (copy / "000002a.jsonl").write_text("{}\n")
    problem = verify(copy)
    assert problem is not None
    assert problem.kind == "foreign"


def test_head_removed(copy: Path) -> None:
    """The file that names the head cannot just be taken away."""
    (copy / HEAD).unlink()
    problem = verify(copy)
    assert problem is not None
    assert (problem.kind, problem.place) == ("missing", f"{copy / HEAD}:1")


def test_use_does_not_hide(copy: Path) -> None:
    """Going on with a journal that was cut keeps the gap in it, and says what was found."""
    _cut(copy, 43)
    (copy / SPARE).unlink(missing_ok=True)
    Journal.open(copy, clock=steady()).append("boot")
    events = [parse(raw).event for _, raw in _read(copy)]
    assert events[-2:] == ["journal-damaged", "boot"]
    problem = verify(copy)
    assert problem is not None
    assert problem.kind == "missing"
    assert problem.place.endswith(":44") or problem.place.endswith(":1")


def test_same_record_other_spelling(copy: Path) -> None:
    """A space that JSON ignores is an edit, too."""
    lines = _read(copy)
    lines[3] = (lines[3][0], lines[3][1].replace(b'"seq":4', b'"seq": 4'))
    _write(copy, lines)
    problem = verify(copy)
    assert problem is not None
    assert problem.place.endswith("000001.jsonl:4")


def test_records_are_values() -> None:
    """What a record cannot hold is refused, and what is too long is shortened with its hash."""
    now = datetime(2026, 4, 1, tzinfo=UTC)
    for event, fields in (("Apply", {}), ("apply", {"A": 1}), ("apply", {"a": 1.5}), ("apply", {"a": {"b": 1}})):
        with pytest.raises(ValueError, match="is n"):
            make(1, now, event, fields, "0" * 64)  # type: ignore[arg-type]
    long: Record = make(1, now, "apply", {"text": "語" * 9000, "many": ["x" * 500] * 900, "bad": "a\udcff"}, "0" * 64)
    assert parse(long.line()) == replace(long, fields=dict(long.fields))
    assert "9000 characters, sha256 " in str(long.fields["text"])
    assert long.fields["bad"] == "a\\udcff"
