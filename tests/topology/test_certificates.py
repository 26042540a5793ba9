"""Certificates to pin: they reach the engine's lists, and what is wrong with their file has its line."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path

import pytest

from netpolicy.cli import main

ROOT = Path(__file__).parents[2]
_HEAD = "id,uri,not_after,sha1,sha256\n"
_OLD, _NEW = "0" * 40, "ab" * 20


def _row(end: str, sha1: str) -> str:
    return f"{end},urn:x,2027-01-01T00:00:00Z,{sha1},{'0' * 64}\n"


def _compile(tmp_path: Path, text: str | bytes) -> int:
    for name in ("topology.yaml", "municipalities.csv", "prefectures.csv"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    path = tmp_path / "certificates.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    topology, out = str(tmp_path / "topology.yaml"), str(tmp_path / "build")
    return main(["compile", topology, "--out", out, "--certificates", str(path)])


def test_pinned_certificates_reach_the_engine(tmp_path: Path) -> None:
    """An end that is being renewed has two; an end without any has an empty list."""
    assert _compile(tmp_path, _HEAD + _row("tachikawa-cs", _NEW) + _row("tachikawa-cs", _OLD)) == 0
    directory = tmp_path / "build/tachikawa-municipal-fw/suricata"
    lines = (directory / "certificates-tachikawa-cs.lst").read_bytes().splitlines()
    assert [b64decode(line).decode() for line in lines] == [":".join(["00"] * 20), ":".join(["ab"] * 20)]
    assert (directory / "certificates-tachikawa-registry.lst").read_bytes() == b""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "certificates.csv:1:1: error: this is not a list of certificates"),
        ("id,sha1\n", "certificates.csv:1:1: error: this is not a list of certificates"),
        (b"\xff\xfe", "certificates.csv:1:1: error: this is not CSV in UTF-8"),
        (_HEAD + "a,b\n", "certificates.csv:2:1: error: 2 values"),
        (_HEAD + _row("tachikawa-sc", _NEW), "did you mean 'tachikawa-cs'?"),
        (_HEAD + _row("tachikawa-cs", _NEW.upper()), "is not a SHA-1; expected 40 hexadecimal digits"),
    ],
)
def test_a_wrong_file_is_refused(
    text: str | bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and nothing is written."""
    assert _compile(tmp_path, text) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "build").exists()
    assert not (tmp_path / "topology.sids.csv").exists()
