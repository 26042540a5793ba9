"""A lab whose process is killed leaves nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conformance.lab.remains import Remains
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
    print(*(namespace.fd for namespace in (lab.wire, *lab.namespaces.values())), flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(build: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Yield a process that holds a lab, and the descriptors of all namespaces in it, the wire's first."""
    argv = [sys.executable, "-c", _HOLD, str(build)]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, [int(each) for each in process.stdout.readline().split()]
        finally:
            process.kill()


@pytest.mark.usefixtures("able")
def test_a_killed_lab_takes_its_processes_along(build: Path) -> None:
    """After SIGKILL no process is left in any namespace of the lab, not even one in a session of its own."""
    with held(build) as (process, descriptors), Remains(process.pid, descriptors) as remains:
        assert len(remains.processes()) == 2
        process.kill()
        process.wait()
        assert until(lambda: not remains.processes(), 30.0)


@pytest.mark.usefixtures("able")
def test_a_killed_lab_takes_its_namespaces_along(build: Path) -> None:
    """After SIGKILL the namespaces are destroyed, not only unreachable: the other ends of their veths disappear."""
    with held(build) as (process, descriptors):
        wire = os.open(f"/proc/{process.pid}/fd/{descriptors[0]}", os.O_RDONLY)
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
    with held(build) as (process, descriptors), Remains(process.pid, descriptors) as remains:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=10) == 0
        assert not remains.processes()


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
