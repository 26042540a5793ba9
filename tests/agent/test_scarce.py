"""What arrives while the disk is full, memory is short or no process can be begun is refused, and changes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance_image.agent.__main__ import main
from appliance_image.agent.root import Root
from appliance_image.agent.stages import close
from appliance_image.agent.state import State
from appliance_image.bundle import Bundle
from tests.agent.making import MANAGEMENT, PORT, Operator
from tests.agent.world import World

_MIB = 1 << 20
_DISK = 16 * _MIB
_CGROUPS = (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"))
"""Of version 1 and 2 (cgroups(7))."""


@pytest.fixture(name="small")
def _small(tmp_path: Path, operator: Operator, both: Bundle) -> Iterator[World]:
    """Yield an appliance that enforces serial 1, with a state partition of 16 MiB."""
    found = World(tmp_path, operator)
    place = found.root.state
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "none", str(place)], check=True, timeout=30)
    try:
        found.power_on()
        found.install(both)
        assert found.boot(), found.console()
        yield found
    finally:
        found.power_off()
        subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=30)


def _fill(world: World) -> Path:
    """Leave nothing of the disk, not even a page."""
    path = world.root.state / "journal" / "filler"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        with contextlib.suppress(OSError):
            while True:
                os.write(descriptor, bytes(4096))
    finally:
        os.close(descriptor)
    return path


def _runs_as_before(world: World) -> None:
    status = json.loads(world.agent("status", "--json").stdout)
    assert (status["runs"]["serial"], status["on_trial"]) == (1, None)
    assert world.exchange(PORT)
    assert world.agent("drift").stdout.startswith("edge: no drift from serial 1")


def _within(limit: Callable[[], None], world: World, *arguments: str) -> int:
    """Call the agent within a limit; return its exit code."""
    places = world._places()

    def run(_root: Root) -> int:
        limit()
        code = main([*places, *arguments])
        sys.stdout.flush()
        return code

    return world.fork(run)


def test_full_disk(small: World, only_management: Bundle) -> None:
    """A bundle is refused before anything of it runs; with room it is taken."""
    filler = _fill(small)
    done = small.agent("apply", str(small.write(only_management)), "--confirm", "60s", "--json")
    assert done.returncode in {2, 3}
    assert json.loads(done.stdout)["code"] in {"state", "journal", "journal-full"}
    assert small.agent("clock").returncode == 0
    _runs_as_before(small)
    filler.unlink()
    assert small.agent("apply", str(small.write(only_management)), "--confirm", "60s").returncode == 0


def test_disk_that_fills_on_trial(small: World, only_management: Bundle) -> None:
    """What cannot be decided is not: the trial ends by itself, and the bundle before runs."""
    assert small.agent("apply", str(small.write(only_management)), "--confirm", "6s").returncode == 0
    _fill(small)
    assert small.agent("confirm").returncode in {2, 3}
    end = time.monotonic() + 60.0
    while State(small.root).pending is not None:
        assert time.monotonic() < end
        time.sleep(0.2)
    _runs_as_before(small)


def test_medium_with_a_full_disk(small: World, only_management: Bundle) -> None:
    """A start with a newer bundle on a medium, and no room for it, does not end in forwarding half of it."""
    _fill(small)
    with pytest.raises(AssertionError):
        small.install(only_management)
    small.power_on()
    if small.boot():
        assert "serial 1" in small.console()[-1]
    else:
        assert "closed" in small.console()[-1]
        assert not small.is_reachable(MANAGEMENT, seconds=0.2)
    (small.root.state / "journal" / "filler").unlink()
    small.power_on()
    assert small.boot()
    assert "serial 1" in small.console()[-1]


@pytest.mark.parametrize("spare", [8, 32])
def test_short_memory(running: World, only_management: Bundle, spare: int) -> None:
    """Wherever memory ends, the bundle on trial goes by itself, and the one before runs."""

    def limit() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + spare * _MIB
        # What it begins may have more, as units have: each has its own.
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))

    _within(limit, running, "apply", str(running.write(only_management)), "--confirm", "5s")
    end = time.monotonic() + 90.0
    while State(running.root).pending is not None:
        assert time.monotonic() < end
        time.sleep(0.2)
    _runs_as_before(running)


@pytest.fixture(name="processes")
def _processes() -> Iterator[Callable[[int], Callable[[], None]]]:
    """Return what holds the process that calls it, and all that it begins, to a number of processes."""
    place = next((each for each in _CGROUPS if _has_processes(each)), None)
    if place is None:
        pytest.fail("this machine has no control group for numbers of processes (cgroups(7), pids)")
    group = place / f"netpolicy-test-{os.getpid()}"
    group.mkdir()
    # Opened here: the appliance has a /sys of its own.
    most, inside = (os.open(group / name, os.O_WRONLY) for name in ("pids.max", "cgroup.procs"))

    def held_to(number: int) -> Callable[[], None]:
        def limit() -> None:
            os.write(most, str(number).encode())
            os.write(inside, b"0")

        return limit

    yield held_to
    os.close(most)
    os.close(inside)
    end = time.monotonic() + 30.0
    while (group / "cgroup.procs").read_text() and time.monotonic() < end:
        time.sleep(0.1)
    group.rmdir()


def _has_processes(place: Path) -> bool:
    if (place / "cgroup.controllers").is_file():
        return "pids" in (place / "cgroup.subtree_control").read_text().split()
    return place.name == "pids" and place.is_dir()


def test_no_process_can_begin(
    running: World, only_management: Bundle, processes: Callable[[int], Callable[[], None]]
) -> None:
    """A bundle that cannot be verified and recorded is refused, and a boot that cannot verify one is closed."""
    path = str(running.write(only_management))
    assert _within(processes(1), running, "apply", path, "--confirm", "60s") == 2
    # Records are sealed by a process: nothing is begun that cannot be recorded.
    assert "netpolicy: journal: the journal cannot be written" in (running.place / "said").read_text()
    _runs_as_before(running)
    running.power_on()
    assert _within(processes(1), running, "boot", "verify") == 1
    assert "verify: closed: " in running.console()[-1]
    assert not running.is_reachable(PORT, seconds=0.2)


def test_closed_without_a_process(running: World, processes: Callable[[int], Callable[[], None]]) -> None:
    """Where nft cannot be begun, whoever closes takes the lines down, and no relay is reached either."""
    limit = processes(1)

    def run(root: Root) -> int:
        limit()
        close(root, "clock", "tried")
        return 0

    assert running.exchange(PORT)
    assert running.fork(run) == 0
    assert "clock: closed: tried (and: nft does not start: " in running.console()[-1]
    assert "all lines are down" in running.console()[-1]
    links = json.loads(running.run_in("appliance", ["ip", "-json", "link", "show", "up"]))
    assert {each["ifname"] for each in links if each} <= {"lo"}
    assert not running.is_reachable(PORT, seconds=0.2)
