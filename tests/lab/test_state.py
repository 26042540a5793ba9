"""What a running lab leaves on disk, and how a dead one is told from it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.lab import LabError
from conformance.lab.state import Claim, Held, LabState, Process, choose, remove_leftovers, running


def state(name: str, holder: Process | None = None) -> LabState:
    """Return the state of a lab held by this process, or by another."""
    holder = holder or Process.of(os.getpid())
    return LabState(name, holder, holder, {"alpha": Held(7, 4026532000)}, "/identities", "/build", {}, {})


def store(root: Path, stored: LabState) -> None:
    """Write a state where a lab of its name would."""
    (root / stored.name).mkdir(parents=True)
    stored.write(root / stored.name)


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Nothing is lost between two processes."""
    store(tmp_path, state("one"))
    assert running(tmp_path) == {"one": state("one")}


def test_a_process_with_the_same_number_is_another_process() -> None:
    """A recycled process number, or the same one after a reboot, is not taken for the lab's."""
    own = Process.of(os.getpid())
    assert own.lives()
    assert not replace(own, start=own.start - 1).lives()
    assert not replace(own, boot="another").lives()


def test_a_process_that_has_ended_does_not_live() -> None:
    """A process counts as dead from its end on, before its parent waits for it as well."""
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    process = Process.of(child.pid)
    assert process.lives()
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process.lives()
    child.wait()
    assert not process.lives()


def test_a_dead_lab_is_not_running_and_its_files_are_removed(tmp_path: Path) -> None:
    """What a killed lab left is passed over and then removed; a living one is left alone."""
    own = Process.of(os.getpid())
    store(tmp_path, state("dead", replace(own, start=own.start - 1)))
    store(tmp_path, state("alive"))
    assert list(running(tmp_path)) == ["alive"]
    assert remove_leftovers(tmp_path) == ("dead",)
    assert [entry.name for entry in tmp_path.iterdir()] == ["alive"]


def test_the_only_lab_needs_no_name(tmp_path: Path) -> None:
    """Without a name the only running lab is meant."""
    store(tmp_path, state("one"))
    assert choose(None, tmp_path).name == "one"


def test_one_of_several_labs_must_be_named(tmp_path: Path) -> None:
    """With several labs the choice is refused with their names, and made with one of them."""
    store(tmp_path, state("one"))
    store(tmp_path, state("two"))
    with pytest.raises(LabError, match="several labs are running, choose with --name: one, two"):
        choose(None, tmp_path)
    assert choose("two", tmp_path).name == "two"
    with pytest.raises(LabError, match="no lab 'three' is running; running: one, two"):
        choose("three", tmp_path)


def test_no_lab_says_how_to_start_one(tmp_path: Path) -> None:
    """Where nothing runs, the message names the command that starts a lab."""
    with pytest.raises(LabError, match="no lab is running: netpolicy lab up"):
        choose(None, tmp_path / "absent")


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    """A state that cannot be understood is an error with its place: it might name a lab that lives."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one/state.json").write_text('{"name": "one"}')
    with pytest.raises(LabError, match=r"state\.json is damaged"):
        running(tmp_path)


def test_a_name_is_claimed_once(tmp_path: Path) -> None:
    """A second claim is refused while the first stands, and granted after it."""
    first = Claim("one", tmp_path)
    with pytest.raises(LabError, match="'one' is running already"):
        Claim("one", tmp_path)
    first.release()
    assert not (tmp_path / "one").exists()
    Claim("one", tmp_path).release()


def test_a_claim_finds_its_directory_private_and_empty(tmp_path: Path) -> None:
    """What a killed lab left in the directory is removed, and nobody else may look inside."""
    (tmp_path / "one/build").mkdir(parents=True)
    (tmp_path / "one/state.json").write_text("{}")
    claim = Claim("one", tmp_path)
    assert list(claim.directory.iterdir()) == []
    assert claim.directory.stat().st_mode & 0o777 == 0o700
    claim.release()
