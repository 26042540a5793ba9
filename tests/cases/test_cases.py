"""Each file ``tests/cases/**/*.txt`` is one case: the files that go in, the command, and all that comes out.

A case is a sentence, then parts, each under a line ``--- name ---``: input files, then one part named by a command
(``$ netpolicy check topology.yaml``) that holds what it prints and its exit code, then files it must have written.
``NETPOLICY_UPDATE_CASES=1 pytest tests/cases`` writes what comes out into the cases, for a person to read and judge.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from netpolicy.cli import main

HERE = Path(__file__).parent
_CASES = sorted(HERE.rglob("*.txt"))
_PART = re.compile(r"^--- (.+) ---\n", re.MULTILINE)
_LEAST_MALFORMED = 60


def parts(text: str) -> tuple[str, dict[str, str]]:
    """Return a case's sentence and its parts by name."""
    sentence, *rest = _PART.split(text)
    return sentence.strip(), dict(zip(rest[::2], rest[1::2], strict=True))


def written(sentence: str, found: dict[str, str]) -> str:
    """Return the text of a case."""
    return f"{sentence}\n\n" + "".join(f"--- {name} ---\n{content}" for name, content in found.items())


@pytest.mark.parametrize("case", _CASES, ids=lambda case: case.relative_to(HERE).with_suffix("").as_posix())
def test_case(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints and writes what the case says, and nothing when it refuses."""
    text = case.read_text(encoding="utf-8")
    sentence, given = parts(text)
    names = list(given)
    at = next(number for number, name in enumerate(names) if name.startswith("$ "))
    monkeypatch.chdir(tmp_path)
    for name in names[:at]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(given[name], encoding="utf-8")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    program, *arguments = shlex.split(names[at][2:])
    assert program == "netpolicy"
    code = main(arguments)
    printed = capsys.readouterr()
    result = {name: given[name] for name in names[:at]}
    result[names[at]] = f"{printed.err}{printed.out}exit {code}\n"
    for name in names[at + 1 :]:
        result[name] = (tmp_path / name).read_text(encoding="utf-8") + "\n"
    if os.environ.get("NETPOLICY_UPDATE_CASES"):
        case.write_text(written(sentence, result), encoding="utf-8")
    else:
        assert written(sentence, result) == text
    if code == 2:
        assert {path for path in tmp_path.rglob("*") if path.is_file()} == before


def test_there_are_enough_malformed_topologies() -> None:
    """Sixty or more ways of being wrong are shown, each with an error of its own."""
    refused = [
        case for case in _CASES if case.parent.name == "check" and "exit 2\n" in case.read_text(encoding="utf-8")
    ]
    assert len(refused) >= _LEAST_MALFORMED
