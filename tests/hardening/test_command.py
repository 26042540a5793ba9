"""``netpolicy image audit``, from its arguments to its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance_image.hardening.tools import LOCK
from netpolicy.cli import main


def test_within(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sound root ends with 0; what was not given is unknown, and no finding."""
    assert main(["image", "audit", str(root)]) == 0
    said = capsys.readouterr().out
    assert "no feed given" in said
    assert "no rules given" in said
    assert f"{root}: within every limit" in said


def test_over(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A root with a setuid file ends with 1, and JSON names it."""
    (root / "usr/bin/su").write_bytes(b"")
    (root / "usr/bin/su").chmod(0o4755)
    assert main(["image", "audit", str(root), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["holds"] is False
    over = [each for section in found["sections"] for each in section["figures"] if each["mark"] == "over"]
    assert [(each["name"], each["reason"]) for each in over] == [("setuid or setgid files", "/usr/bin/su")]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["/nowhere"], "neither an image"),
        (["{root}", "--build", "{root}"], "not a build"),
        (["{root}", "--firewall", "x"], "give --build"),
        (["{root}", "--report", "{root}/etc/passwd"], "not the report"),
        (
            ["{root}", "--feed", "{root}/etc/passwd", "--packages", str(LOCK)],
            "security tracker",
        ),
        (["{root}", "--packages", "{root}/etc/passwd"], "lock file"),
        (["{root}", "--cmdline", "/nowhere"], "cannot be read"),
    ],
)
def test_wrong_input(root: Path, argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is not what it should be ends with 2 and the reason, not with figures."""
    assert main(["image", "audit", *(word.format(root=root) for word in argv)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert said in told.err


def test_broken_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An image whose manifest is none is refused."""
    (tmp_path / "image.json").write_text("{}")
    assert main(["image", "audit", str(tmp_path)]) == 2
    assert "no manifest" in capsys.readouterr().err
