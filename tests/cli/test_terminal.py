"""What a person sees at the terminal, whatever the terminal is."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from netpolicy import cli
from netpolicy.cli import check, main
from netpolicy.cli._terminal import console

ROOT = Path(__file__).parents[2]
NETPOLICY = [sys.executable, "-c", "import sys; from netpolicy.cli import main; sys.exit(main())"]


def netpolicy(*arguments: str, text: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command as a process of its own."""
    argv, env = [*NETPOLICY, *arguments], {**os.environ, **environment}
    return subprocess.run(argv, cwd=ROOT, input=text, env=env, capture_output=True, timeout=60, check=False)


def test_an_encoding_without_the_letters_is_no_failure() -> None:
    """Where Japanese cannot be written, numbers stand for it, and the exit code is what it would be."""
    done = netpolicy("check", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert rb"topology.yaml: valid. \u4f4f\u6c11" in done.stdout


def test_a_topology_comes_from_standard_input() -> None:
    """'-' is standard input; places are in '-', and tables beside the caller."""
    text = (ROOT / "topology.yaml").read_bytes()
    assert netpolicy("check", "-", text=text).stdout.startswith(b"-: valid.")
    done = netpolicy("check", "-", text=text.replace(b"timezone:", b"timezome:", 1))
    assert done.returncode == 2
    assert b"unknown key 'timezome'; expected one of" in done.stderr
    assert done.stderr.startswith(b"-:")


def test_standard_input_is_bounded() -> None:
    """More than a topology may have is not read."""
    done = netpolicy("check", "-", text=b"#" * (1 << 21))
    assert done.returncode == 2
    assert b"'-' is larger than 1048576 bytes" in done.stderr


def test_an_interrupt_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends any command with 130, as a shell tells it, and without a traceback."""

    def interrupted(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(check, "check_topology", interrupted)
    assert main(["check"]) == cli.INTERRUPTED == 130
    assert capsys.readouterr().err == "netpolicy: interrupted\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["chek"], "there is no 'chek'; did you mean 'check'?"),
        (["lab", "dwon"], "there is no 'dwon'; did you mean 'down'?"),
        (["compile", "--suricata", "9"], "there is no '9'; one of 7, 8"),
        (["check", "--as-of", "9999-12-31"], "expected a day, YYYY-MM-DD, from 1971-01-01 to 2105-12-31"),
    ],
)
def test_what_was_meant_is_said(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A command or choice that there is not gets its nearest name."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_nothing_is_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of emoji, such as ':100:' in an IPv6 address, and words in brackets are printed as they are."""
    output = io.StringIO()
    monkeypatch.setattr(sys, "stdout", output)
    console(80).print("fd00:198:51:100::77 [red]:warning:[/red]")
    assert output.getvalue() == "fd00:198:51:100::77 [red]:warning:[/red]\n"


def test_numbers_can_be_kept_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the numbers of signatures cannot be written nothing is compiled, and --sids names another place."""
    case = (ROOT / "tests/cases/compile/small.txt").read_text(encoding="utf-8")
    text = case.partition("--- topology.yaml ---\n")[2].partition("--- ")[0]
    (tmp_path / "topology.yaml").write_text(text, encoding="utf-8")
    beside = [str(tmp_path / "topology.yaml"), "--out", str(tmp_path / "build")]
    nowhere = str(tmp_path / "nowhere/sids.csv")
    assert main(["compile", *beside, "--sids", nowhere]) == 2
    assert f"cannot be kept in {nowhere}" in capsys.readouterr().err
    assert not (tmp_path / "build").exists()
    assert main(["compile", *beside, "--sids", str(tmp_path / "numbers.csv")]) == 0
    assert (tmp_path / "numbers.csv").read_text(encoding="utf-8").startswith("sid,rev")
