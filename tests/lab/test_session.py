"""A lab that is kept up, entered, and ended, as three separate processes do it."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from conformance.lab import LabError, holder
from conformance.lab.enter import execute
from conformance.lab.namespace import Namespace
from conformance.lab.reaper import Reaper
from conformance.lab.remains import Remains
from conformance.lab.state import Held, running
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("able")

_REPOSITORY = Path(__file__).parents[2]
_HEAD = """
import sys
from pathlib import Path
from tests.lab.small import small_topology
from conformance.lab.enter import execute
from conformance.lab.holder import hold, start
from conformance.lab.state import choose
root, arguments = Path(sys.argv[1]), sys.argv[2:]
"""
_START = _HEAD + "start(small_topology(arguments[0]), Path(arguments[1]) if arguments[1:] else None, root=root)"
_HOLD = _HEAD + "hold(small_topology('held'), None, lambda state: print(state.name, flush=True), root=root)"
_EXECUTE = _HEAD + "sys.exit(execute(choose(None, root), arguments[0], arguments[1:], root=root))"


def python(script: str, *arguments: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own."""
    argv = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(argv, cwd=_REPOSITORY, input=text, capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Path]:
    """Yield the root of the state of a lab that is up, and end it."""
    done = python(_START, tmp_path, "kept")
    assert done.stderr == ""
    assert done.returncode == 0
    yield tmp_path
    for state in running(tmp_path).values():
        holder.stop(state, root=tmp_path)


def test_a_command_runs_in_its_node(kept: Path) -> None:
    """A command sees its node's devices, and its input, outputs and exit code pass through."""
    script = "ls /sys/class/net; cat; echo oops >&2; exit 7"
    done = python(_EXECUTE, kept, "alpha", "sh", "-c", script, text="from outside\n")
    assert done.stdout.split() == ["eth0", "lo", "from", "outside"]
    assert done.stderr == "oops\n"
    assert done.returncode == 7


def test_names_resolve_to_both_families(kept: Path) -> None:
    """Every node and firewall has its addresses under its id, and the machine's own names are not seen."""
    done = python(_EXECUTE, kept, "alpha", "sh", "-c", "getent ahosts gamma; getent ahosts edge; cat /etc/resolv.conf")
    assert {"10.77.3.10", "fd77:0:0:3::a", "10.77.1.1", "10.77.2.1", "fd77:0:0:2::1"} <= set(done.stdout.split())
    assert "nameserver" not in done.stdout
    assert python(_EXECUTE, kept, "alpha", "getent", "ahosts", "example.org").returncode == 2


def test_the_machines_own_files_stay(kept: Path) -> None:
    """The names of the lab are seen by its commands only."""
    before = Path("/etc/hosts").read_bytes()
    python(_EXECUTE, kept, "alpha", "true")
    assert Path("/etc/hosts").read_bytes() == before


def test_a_firewall_can_be_entered(kept: Path) -> None:
    """A command in a firewall sees its ruleset."""
    done = python(_EXECUTE, kept, "edge", "nft", "list", "counters")
    assert "flow_notice" in done.stdout


def test_a_command_that_a_signal_ends_gives_128_more(kept: Path) -> None:
    """A command killed by a signal gives the exit code a shell would."""
    assert python(_EXECUTE, kept, "alpha", "sh", "-c", "kill -9 $$").returncode == 137


def test_an_unknown_node_gets_its_nearest_name(kept: Path) -> None:
    """A misspelt node is refused, with what was probably meant."""
    with pytest.raises(LabError, match="no node or firewall 'alpa'; did you mean 'alpha'"):
        execute(running(kept)["kept"], "alpa", ["true"], root=kept)


def test_a_second_lab_of_the_same_name_is_refused(kept: Path) -> None:
    """While one is up another one of its name is refused, and the first is untouched."""
    before = running(kept)
    assert "a lab 'kept' is running already" in python(_START, kept, "kept").stderr
    assert running(kept) == before


def test_stopping_leaves_nothing(kept: Path) -> None:
    """After stop() neither state, nor process, nor a command left behind is there."""
    state = running(kept)["kept"]
    python(_EXECUTE, kept, "alpha", "sh", "-c", "setsid sleep 8642 >/dev/null 2>&1 &")
    with Remains.of(state) as remains:
        assert remains.processes()
        holder.stop(state, root=kept)
        assert not remains.processes()
    assert not state.holder.lives()
    assert list(kept.iterdir()) == []


def test_a_later_namespace_is_not_taken_for_the_labs(kept: Path) -> None:
    """Another's namespace with the inode of one of the lab's, which the kernel may give it, does not keep stop()."""
    state = running(kept)["kept"]
    holder.stop(state, root=kept)
    with Reaper() as reaper, closing(Namespace("later", reaper)) as later:
        later.popen(["sleep", "8644"])
        holder.stop(dataclasses.replace(state, namespaces={"alpha": Held(0, later.inode)}), root=kept)


def test_a_killed_holder_ends_commands_and_is_cleaned_up_after(kept: Path) -> None:
    """After SIGKILL a command that ran in the lab is dead, and the name can be used again at once."""
    state = running(kept)["kept"]
    argv = [sys.executable, "-c", _EXECUTE, str(kept), "alpha", "sh", "-c", "echo on; sleep 8643"]
    with Remains.of(state) as remains, subprocess.Popen(argv, cwd=_REPOSITORY, stdout=subprocess.PIPE) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == b"on\n"
        os.kill(state.holder.pid, signal.SIGKILL)
        assert command.wait(timeout=10) == 128 + signal.SIGKILL
        assert until(lambda: not remains.processes(), 30.0)
    assert running(kept) == {}
    assert python(_START, kept, "kept").stderr == ""
    assert running(kept)["kept"].holder != state.holder


def test_a_lab_in_the_foreground_ends_with_sigterm(tmp_path: Path) -> None:
    """hold() reports when the lab is up, keeps it, and removes everything when it is told to end."""
    argv = [sys.executable, "-c", _HOLD, str(tmp_path)]
    with subprocess.Popen(argv, cwd=_REPOSITORY, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        python(_EXECUTE, tmp_path, "alpha", "sh", "-c", "setsid sleep 8645 >/dev/null 2>&1 &")
        with Remains.of(running(tmp_path)["held"]) as remains:
            assert remains.processes()
            process.terminate()
            assert process.wait(timeout=10) == 0
            assert not remains.processes()
    assert list(tmp_path.iterdir()) == []


def test_a_lab_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    """What the holder could not do is the caller's error, and nothing is left of the attempt."""
    done = python(_START, tmp_path, "broken", tmp_path / "nowhere")
    assert done.returncode == 1
    assert f"LabError: {tmp_path}/nowhere is no build" in done.stderr
    assert list(tmp_path.iterdir()) == []
