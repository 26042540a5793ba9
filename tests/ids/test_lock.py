"""The lock file: numbers stay, revisions count changes, and what is wrong with the file is told with its line."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from ids_rules.lock import FIRST, LAST, Entry, SidLock, lock_path, read_lock
from netpolicy.cli import main
from netpolicy.diagnostics import InputError

_DAY, _LATER = date(2026, 11, 1), date(2026, 12, 1)
_HEAD = "sid,rev,created,updated,sha256,firewall,signature\n"
_ROW = f"1000000,1,2026-11-01,2026-11-01,{'0' * 64},fw,a/-/-\n"


def test_numbers_stay_and_revisions_count_changes() -> None:
    """The same text keeps its revision; another one raises it, and only that."""
    lock = SidLock()
    first, second = lock.assign("fw", "a/-/-", "one", _DAY), lock.assign("fw", "b/-/-", "two", _DAY)
    assert (first.sid, first.rev, second.sid) == (FIRST, 1, FIRST + 1)
    assert lock.assign("fw", "a/-/-", "one", _LATER) == first
    changed = lock.assign("fw", "a/-/-", "another", _LATER)
    assert (changed.sid, changed.rev, changed.created, changed.updated) == (FIRST, 2, _DAY, _LATER)


def test_a_number_is_never_used_twice(tmp_path: Path) -> None:
    """What is gone from the network stays in the file, and what is new comes after it."""
    lock = SidLock()
    for key in ("a/-/-", "b/-/-"):
        lock.assign("fw", key, key, _DAY)
    path = tmp_path / "x.sids.csv"
    path.write_text(lock.text(), encoding="utf-8")
    again = read_lock(path)
    assert again == lock
    assert again.assign("fw", "c/-/-", "c", _DAY).sid == FIRST + 2


def test_the_range_ends() -> None:
    """There is no number after the last one."""
    lock = SidLock({("fw", "a"): Entry(LAST, 1, _DAY, _DAY, "0" * 64)})
    with pytest.raises(OverflowError, match="no signature ids are left"):
        lock.assign("fw", "b", "b", _DAY)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ":1:1: error: this is not a lock file"),
        ("sid,rev\n", ":1:1: error: this is not a lock file"),
        (_HEAD + "x,1\n", ":2:1: error: 'x,1' is not an entry"),
        (_HEAD + _ROW.replace("1000000", "999"), "is not an entry"),
        (_HEAD + _ROW.replace(",1,", ",0,", 1), "is not an entry"),
        (_HEAD + _ROW + _ROW.replace("a/", "b/"), ":3:1: error: sid 1000000 stands in line 2 already"),
        (_HEAD + _ROW + _ROW.replace("1000000", "1000001"), ":3:1: error: 'fw/a/-/-' has a sid already"),
    ],
)
def test_a_damaged_file_is_refused(text: str, said: str, tmp_path: Path) -> None:
    """Every fault has its line."""
    path = tmp_path / "x.sids.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(said)):
        read_lock(path)


def test_locked_refuses_a_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CI compiles with --locked: it writes nothing when a signature is new, and passes once the file is committed."""
    case = (Path(__file__).parents[1] / "cases/compile/small.txt").read_text(encoding="utf-8")
    topology = tmp_path / "topology.yaml"
    topology.write_text(case.split("--- topology.yaml ---\n")[1].split("--- $")[0], encoding="utf-8")
    arguments = ["compile", str(topology), "--out", str(tmp_path / "build")]
    assert main([*arguments, "--locked"]) == 1
    assert "compile without --locked" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["topology.yaml"]
    assert main(arguments) == 0
    before = lock_path(topology).read_bytes()
    assert main([*arguments, "--locked"]) == 0
    assert lock_path(topology).read_bytes() == before
