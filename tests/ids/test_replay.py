"""``netpolicy ids replay``: captures in, protocols and ports out."""

from __future__ import annotations

import json
import struct
from itertools import islice
from pathlib import Path

import pytest

from conformance.replay import MAX_BYTES
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


def test_an_empty_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing was tried, so nothing holds."""
    assert _replay(tmp_path) == 2
    assert "holds 0 captures" in capsys.readouterr().err


def test_what_cannot_be_read_does_not_end_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each file has its row, also one of another link type and one that is no capture; the exit code is the worst."""
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 105)  # LINKTYPE_IEEE802_11
    (tmp_path / "a-wireless.pcap").write_bytes(header + struct.pack("<IIII", 0, 0, 4, 4) + bytes(4))
    (tmp_path / "b-none.pcap").write_bytes(b"no capture")
    with (tmp_path / "c-large.pcap").open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    write_pcap(tmp_path / "d-smtp.pcap", CONVERSATIONS["smtp"].packets())
    write_pcap(tmp_path / "e-nothing.pcap", islice(CONVERSATIONS["smtp"].packets(), 1))
    assert _replay(tmp_path, "--json") == 2
    rows = {row["capture"]: row for row in json.loads(capsys.readouterr().out)}
    assert "datalink type 105 not" in rows["a-wireless.pcap"]["failed"]
    assert "the engine cannot read it" in rows["b-none.pcap"]["failed"]
    assert rows["c-large.pcap"]["failed"] == f"it is larger than {MAX_BYTES} bytes"
    assert (rows["d-smtp.pcap"]["protocol"], rows["d-smtp.pcap"]["failed"]) == ("smtp", None)
    assert (rows["e-nothing.pcap"]["protocol"], rows["e-nothing.pcap"]["seen"]) == (None, 0)
    assert _replay(tmp_path) == 2
    assert "5 captures: 1 with something in them, 3 not read; 1 of 1 expected seen" in capsys.readouterr().out
