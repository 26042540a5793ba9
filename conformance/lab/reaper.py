"""A PID namespace in which all processes of a lab run, and with which they die."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from conformance.lab.errors import LabError
from conformance.lab.syscalls import CLONE_NEWPID, setns, unshare
from netpolicy.environment import ENVIRONMENT

_INIT = Path(__file__).with_name("init.py")


class Reaper:
    """Holds a PID namespace while it is entered; every process in it is killed when this one ends.

    PR_SET_PDEATHSIG would not do: it fires when the *thread* that forked ends, and grandchildren do not inherit it.
    """

    pid: int
    """Of the namespace's first process, as this process sees it."""

    def __init__(self) -> None:
        self._children: list[subprocess.Popen[Any]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        started: Future[subprocess.Popen[bytes]] = Future()
        threading.Thread(target=_start, args=(started,), name="reaper").start()
        self._init = started.result()
        try:
            self._await_ready()
            self.pid = self._init.pid
            self._fd = os.open(f"/proc/{self.pid}/ns/pid", os.O_RDONLY)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._fd)
        self._end()

    def popen(self, argv: Sequence[str], **kwargs: Any) -> subprocess.Popen[Any]:
        """Start a program in the namespace; `kwargs` are those of :class:`subprocess.Popen`.

        It leaves the calling thread unable to make further threads (setns(2)).
        """
        setns(self._fd, CLONE_NEWPID)
        process = subprocess.Popen(argv, **kwargs)
        with self._lock:
            self._children = [child for child in self._children if child.returncode is None]
            self._children.append(process)
        return process

    def _await_ready(self) -> None:
        assert self._init.stdout is not None  # noqa: S101 - PIPE was asked for
        if self._init.stdout.readline() != b"\n":
            raise LabError(f"the first process of the lab's PID namespace ended at once ({self._init.wait()})")

    def _end(self) -> None:
        for stream in (self._init.stdin, self._init.stdout):
            if stream is not None:
                stream.close()
        # Now the kernel has killed them all. The first process ends only when the last of them was waited for.
        for child in self._children:
            child.wait()
        self._init.wait()


def _start(started: Future[subprocess.Popen[bytes]]) -> None:
    try:
        unshare(CLONE_NEWPID)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_INIT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
            env=ENVIRONMENT,
        )
    except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
        started.set_exception(error)
    else:
        started.set_result(process)
