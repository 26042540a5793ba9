"""The command line, and the commands whose use is recorded."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from appliance_image.journal import Journal, verify
from appliance_image.journal.read import records
from netpolicy.cli import main
from tests.docs.source import ROOT
from tests.journal.conftest import Keys, steady


def test_verify_holds(sealed: Path, keys: Keys, capsys: pytest.CaptureFixture[str]) -> None:
    """A journal that holds gives 0 and its head, with which it can be verified again."""
    assert main(["journal", "verify", str(sealed), "--key", str(keys.public)]) == 0
    said = capsys.readouterr().out
    found = re.search(r"(\d+) records hold, sealed up to record (\d+); head (\S+)", said)
    assert found is not None, said
    assert main(["journal", "verify", str(sealed), "--head", found[3]]) == 0
    assert main(["journal", "verify", str(sealed), "--head", f"9999:{'0' * 64}"]) == 1


def test_verify_names(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that does not gives 1 and file, line, kind and reason, also as JSON."""
    segment = copy / "000001.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b'"number":7,', b'"number":8,', 1))
    assert main(["journal", "verify", str(copy)]) == 1
    said = capsys.readouterr().out
    assert re.fullmatch(rf"{segment}:9: altered: its hash does not match what it says\n", said)
    assert main(["journal", "verify", str(copy), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["holds"], document["records"], document["problem"]["place"]) == (False, 8, f"{segment}:9")


@pytest.mark.parametrize("arguments", [["verify"], ["show"]])
def test_no_journal(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory that is not there is a wrong call."""
    assert main(["journal", *arguments, str(tmp_path / "none")]) == 2
    assert "there is no journal" in capsys.readouterr().err


def test_show(tmp_path: Path, keys: Keys, capsys: pytest.CaptureFixture[str]) -> None:
    """Records are shown as a table, by event and from a time on, without what a terminal would obey."""
    journal = Journal.open(tmp_path / "journal", key=keys.private, clock=steady())
    journal.append("apply", {"actor": "root", "bundle": "a\x1b[2Jb", "done": True, "serial": 4, "who": None})
    journal.append("refused", {"operators": ["one", "two"], "code": "expired"})
    assert main(["journal", "show", str(journal.directory)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert re.search(r"apply +root +bundle=a\N{REPLACEMENT CHARACTER}\[2Jb done=yes serial=4 who=-$", lines[2])
    assert re.search(r"refused +one,two +code=expired$", lines[3])
    assert main(["journal", "show", str(journal.directory), "--event", "refused", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["fields"]["code"] == "expired"
    since = list(records(journal.directory))[-2].time
    assert main(["journal", "show", str(journal.directory), "--since", since]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def _fields(directory: Path) -> list[tuple[str, dict[str, object]]]:
    return [(record.event, dict(record.fields)) for record in records(directory)]


def test_compile_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compilation is recorded when it begins and when it ends, with who did it and what came out."""
    journal = tmp_path / "journal"
    out = tmp_path / "build"
    topology = str(ROOT / "topology.yaml")
    assert main(["compile", topology, "--out", str(out), "--journal", str(journal)]) == 0
    (_, _), (one, begun), (two, ended) = _fields(journal)
    assert (one, two) == ("compile", "compile")
    assert (begun["phase"], ended["phase"], ended["begun"], ended["exit"]) == ("begun", "ended", 2, 0)
    assert {"actor", "uid", "host"} <= set(begun)
    manifest = json.loads((out / "manifest.json").read_text())
    assert ended["topology_sha256"] == manifest["topology_sha256"]
    monkeypatch.setenv("NETPOLICY_JOURNAL", str(journal))
    (tmp_path / "wrong.yaml").write_text("id: 1\n")
    assert main(["compile", str(tmp_path / "wrong.yaml"), "--out", str(out)]) == 2
    assert str(_fields(journal)[-1][1]["failed"]).startswith("InputError: ")
    assert verify(journal) is None


def test_rehearsal_is_recorded(tmp_path: Path) -> None:
    """So is a rehearsal, also one that is refused."""
    journal = tmp_path / "journal"
    arguments = ["conform", str(ROOT / "topology.yaml"), "--firewall", "none", "--journal", str(journal)]
    assert main(arguments) == 2
    events = _fields(journal)
    assert [event for event, _ in events] == ["journal-begin", "rehearsal", "rehearsal"]
    assert events[-1][1]["exit"] == 2


def test_nothing_is_done_unrecorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the journal cannot be written, nothing is compiled."""
    (tmp_path / "journal").write_text("a file\n")
    out = tmp_path / "build"
    arguments = ["compile", str(ROOT / "topology.yaml"), "--out", str(out), "--journal", str(tmp_path / "journal")]
    assert main(arguments) == 3
    assert "nothing was done" in capsys.readouterr().err
    assert not out.exists()
