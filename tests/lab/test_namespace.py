"""Namespaces: what runs in them, and what does not get out."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from conformance.lab import Lab


def test_a_socket_made_inside_stays_inside(lab: Lab) -> None:
    """A socket made by call() belongs to the namespace when other threads use it later."""
    with lab.namespace("alpha").call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as inside:
        inside.bind(("10.77.1.10", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside, pytest.raises(OSError, match="assign"):
            outside.bind(("10.77.1.10", 0))


def test_call_raises_what_the_function_raises(lab: Lab) -> None:
    """An exception inside the namespace reaches the caller as it is."""

    def fail() -> None:
        raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        lab.namespace("alpha").call(fail)


def test_the_callers_thread_does_not_move(lab: Lab) -> None:
    """After call() and run() this thread is in the namespace it was in."""
    before = Path("/proc/thread-self/ns/net").stat().st_ino
    lab.namespace("alpha").call(lambda: None)
    lab.namespace("alpha").run(["true"], timeout=5)
    assert Path("/proc/thread-self/ns/net").stat().st_ino == before


def test_run_passes_input_output_and_code(lab: Lab) -> None:
    """run() hands input, environment, both outputs and the exit code through."""
    script = 'read line; echo "$line $WORD"; echo no >&2; exit 3'
    done = lab.namespace("beta").run(["sh", "-c", script], timeout=5, input="text\n", env={"WORD": "word"})
    assert (done.stdout, done.stderr, done.returncode) == ("text word\n", "no\n", 3)


def test_run_uses_the_network_of_the_namespace(lab: Lab) -> None:
    """A program sees the devices of its namespace and no others."""
    done = lab.namespace("edge").run(["ip", "-brief", "link"], timeout=5)
    assert {line.split("@")[0].split()[0] for line in done.stdout.splitlines()} == {"lo", "lan", "wan"}


def test_a_timeout_kills_the_whole_process_group(lab: Lab) -> None:
    """When run() gives up, the children of the program are dead as well and it does not wait for them."""
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        lab.namespace("alpha").run(["sh", "-c", "sleep 4321 & wait"], timeout=0.3)
    assert time.monotonic() - began < 60
    assert not _commands_with("4321")


def test_a_program_that_does_not_exist_is_reported(lab: Lab) -> None:
    """A missing program is a FileNotFoundError, not an exit code."""
    with pytest.raises(FileNotFoundError):
        lab.namespace("alpha").run(["no-such-program"], timeout=5)


def test_namespaces_have_no_names(lab: Lab) -> None:
    """Nothing of the lab shows in /run/netns or among this process's own devices."""
    names = Path("/run/netns")
    assert not names.exists() or not any(entry.stat().st_ino == lab.wire.inode for entry in names.iterdir())
    assert not {name for _, name in socket.if_nameindex()} & set(lab.wiring.ports.values())


def test_descriptors_do_not_leak_into_programs(lab: Lab) -> None:
    """A program started in a namespace holds no descriptor of any namespace."""
    done = lab.namespace("alpha").run(["ls", "-l", "/proc/self/fd"], timeout=5)
    assert done.stdout
    assert "net:" not in done.stdout


def _commands_with(word: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if os.fsencode(word) in command:
            found.append(process.name)
    return found
