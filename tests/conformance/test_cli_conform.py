"""The command ``conform``: what it says, what it leaves behind, and with which code it exits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from netpolicy.cli import main

_CASE = Path(__file__).parents[1] / "cases/check/valid.txt"


@pytest.fixture(name="topology")
def _topology(tmp_path: Path) -> Path:
    """Return the small valid topology of the compiler's cases, as a file."""
    text = _CASE.read_text(encoding="utf-8").split("--- topology.yaml ---\n")[1].split("--- $")[0]
    (tmp_path / "topology.yaml").write_text(text, encoding="utf-8")
    return tmp_path / "topology.yaml"


def test_conform_exits_with_0_when_all_holds(topology: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command compiles, runs every stage and says that it holds."""
    assert main(["conform", str(topology), "--report", str(topology.parent / "out")]) == 0
    printed = capsys.readouterr().out
    assert "holds: " in printed
    assert all(stage in printed for stage in ("matrix", "boundary", "attack", "limits", "exchange", "client"))
    assert (topology.parent / "out/junit.xml").exists()


def test_conform_exits_with_1_when_something_does_not(topology: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A build whose permit is gone does not hold; as JSON too."""
    build = topology.parent / "build"
    assert main(["compile", str(topology), "--out", str(build)]) == 0
    ruleset = build / "hall-fw/nftables.nft"
    ruleset.write_text(ruleset.read_text(encoding="utf-8").replace("10.1.0.10 . 10.2.0.10", "10.1.0.9 . 10.2.0.10"))
    capsys.readouterr()
    assert main(["conform", str(topology), "--build", str(build), "--stage", "boundary", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {each["expected"]["flow"] for each in found["outcomes"]} == {"notice"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--stage", "matrx"], "there is no stage 'matrx'; did you mean 'matrix'?"),
        (["--firewall", "town-fv"], "there is no firewall 'town-fv'; did you mean 'town-fw'?"),
        (["--build", "nowhere"], "nowhere"),
    ],
)
def test_conform_exits_with_2_when_the_call_is_wrong(
    topology: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    """Unknown names come with the nearest one."""
    assert main(["conform", str(topology), *arguments]) == 2
    assert complaint in capsys.readouterr().err


def test_conform_refuses_a_build_of_another_topology(topology: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A build that was not compiled from this topology is not run."""
    build = topology.parent / "build"
    assert main(["compile", str(topology), "--out", str(build)]) == 0
    shutil.copy(topology, topology.with_name("other.yaml"))
    with topology.with_name("other.yaml").open("a", encoding="utf-8") as file:
        file.write("# another one\n")
    assert main(["conform", str(topology.with_name("other.yaml")), "--build", str(build)]) == 2
    assert "another topology" in capsys.readouterr().err


def test_conform_refuses_a_foreign_report_directory_first(topology: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory that holds no report is refused before the lab is brought up, and stays as it is."""
    home = topology.parent / "home"
    home.mkdir()
    (home / "letter").write_text("dear")
    assert main(["conform", str(topology), "--build", "nowhere", "--report", str(home)]) == 2
    assert "holds no conformance.json" in capsys.readouterr().err
    assert [each.name for each in home.iterdir()] == ["letter"]


def test_conform_exits_with_3_when_the_machine_lacks_something(
    topology: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its tools the command says what is missing, and proves nothing."""
    monkeypatch.setattr("conformance.lab.preflight.ENVIRONMENT", {"PATH": str(topology.parent)})
    assert main(["conform", str(topology)]) == 3
    captured = capsys.readouterr()
    assert "this machine lacks program nft (needed for lab): not on PATH; Debian package nftables" in captured.err
    assert captured.out == ""


def test_conform_probes_only_what_is_asked_for(topology: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One stage at one firewall is all that the report then holds."""
    assert main(["conform", str(topology), "--firewall", "town-fw", "--stage", "boundary", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["firewalls"], found["stages"]) == (["town-fw"], ["boundary"])
    assert {(each["firewall"], each["stage"]) for each in found["passed"]} == {("town-fw", "boundary")}


def test_conform_holds_the_model_against_the_kernel(topology: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --witnesses alone that stage is all that is run."""
    assert main(["conform", str(topology), "--firewall", "town-fw", "--witnesses", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["stages"], found["counts"]["fault"]) == (["witness"], 0)
    assert sum(each["cases"] for each in found["passed"]) > 1000
