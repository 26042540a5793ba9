"""``netpolicy ids replay``: captures in, protocols and ports out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from netpolicy.cli import main
from tests.ids.conversations import CONVERSATIONS
from tests.ids.transcript import write_pcap

_TOPOLOGY = str(Path(__file__).parents[2] / "topology.yaml")


def _replay(folder: Path, *options: str) -> int:
    return main(["ids", "replay", str(folder), "--topology", _TOPOLOGY, *options])


def test_protocols_are_recognised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By what is said, below the folder too; a file that is called after nothing expects nothing."""
    (tmp_path / "more").mkdir()
    for name, conversation in (("a-smtp-session.pcap", "smtp"), ("more/ssh.pcap", "ssh"), ("unknown.pcap", "ftp")):
        write_pcap(tmp_path / name, CONVERSATIONS[conversation].packets())
    assert _replay(tmp_path, "--json") == 0
    rows = {(row["capture"], row["protocol"], row["expected"]) for row in json.loads(capsys.readouterr().out)}
    assert rows >= {
        ("a-smtp-session.pcap", "smtp", True),
        ("more/ssh.pcap", "ssh", True),
        ("unknown.pcap", "ftp", False),
    }
    assert _replay(tmp_path) == 0
    assert "2 of 2 expected seen" in capsys.readouterr().out


def test_what_is_not_seen_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is called after one protocol and holds another one."""
    write_pcap(tmp_path / "telnet.pcap", CONVERSATIONS["ssh"].packets())
    assert _replay(tmp_path) == 1
    assert "telnet.pcap  telnet" in capsys.readouterr().out


def test_an_empty_folder_and_what_is_no_capture_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing was tried, so nothing holds."""
    assert _replay(tmp_path) == 2
    assert "holds 0 captures" in capsys.readouterr().err
    (tmp_path / "x.pcap").write_bytes(b"no capture")
    assert _replay(tmp_path) == 2
    assert "cannot read" in capsys.readouterr().err
