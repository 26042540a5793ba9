"""A lab whose process is killed leaves nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.waiting import until

ROOT = Path(__file__).parents[2]

_HOLD = """
import sys
from pathlib import Path

import pytest
from tests.lab.small import small_topology
from conformance.lab import Lab
with Lab(small_topology(), Path(sys.argv[1])) as lab:
    alpha = lab.namespace("alpha")
    orphan = "setsid sleep 9753 >/dev/null 2>&1 & echo"
    alpha.run(["sh", "-c", orphan], timeout=5)
    alpha.popen(["sleep", "9753"])
    inodes = [namespace.inode for namespace in (lab.wire, *lab.namespaces.values())]
    print(lab.wire.fd, *inodes, flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(build: Path) -> Iterator[tuple[subprocess.Popen[str], int, set[int]]]:
    """Yield a process that holds a lab, the descriptor of its wire, and the inodes of all namespaces."""
    argv = [sys.executable, "-c", _HOLD, str(build)]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            descriptor, *inodes = map(int, process.stdout.readline().split())
            yield process, descriptor, set(inodes)
        finally:
            process.kill()


@pytest.mark.usefixtures("able")
def test_a_killed_lab_takes_its_processes_along(build: Path) -> None:
    """After SIGKILL no process is left in any namespace of the lab, not even one in a session of its own."""
    with held(build) as (process, _, inodes):
        assert len(processes_in(inodes)) == 2
        process.kill()
        process.wait()
        assert until(lambda: not processes_in(inodes), 30.0)


@pytest.mark.usefixtures("able")
def test_a_killed_lab_takes_its_namespaces_along(build: Path) -> None:
    """After SIGKILL the namespaces are destroyed, not only unreachable: the other ends of their veths disappear."""
    with held(build) as (process, descriptor, _):
        wire = os.open(f"/proc/{process.pid}/fd/{descriptor}", os.O_RDONLY)
        try:
            assert len(ports(wire)) == 7
            process.kill()
            process.wait()
            assert until(lambda: not ports(wire), 30.0)
        finally:
            os.close(wire)


@pytest.mark.usefixtures("able")
def test_a_lab_that_ends_takes_its_processes_along(build: Path) -> None:
    """When the context is left, programs that still run in the lab are killed."""
    with held(build) as (process, _, inodes):
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=10) == 0
        assert not processes_in(inodes)


def processes_in(inodes: set[int]) -> list[str]:
    """Return the processes whose network namespace is one of `inodes`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "ns/net").stat().st_ino in inodes:
                found.append(process.name)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def ports(wire: int) -> list[str]:
    """Return the wire ports that are left in the namespace `wire`."""
    listing = subprocess.run(
        ["nsenter", f"--net=/proc/self/fd/{wire}", "ip", "-brief", "link", "show", "type", "veth"],
        pass_fds=[wire],
        capture_output=True,
        text=True,
        check=True,
        timeout=5,
    )
    return listing.stdout.splitlines()
