"""One network namespace, held by a file descriptor only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from conformance.lab.reaper import Reaper
from conformance.lab.syscalls import CLONE_NEWNET, setns, unshare
from netpolicy.environment import ENVIRONMENT

T = TypeVar("T")


class Namespace:
    """A network namespace of the lab.

    Functions and programs run in it; nothing of it shows in the file system.
    """

    name: str
    """The node or firewall it belongs to, or ``wire``."""
    fd: int
    """Holds the namespace (close-on-exec)."""
    inode: int
    """What identifies it among all namespaces of the machine."""
    native_devices: frozenset[str]
    """The devices the kernel itself put there: ``lo``, and on some machines fallback tunnels."""

    def __init__(self, name: str, reaper: Reaper) -> None:
        """Make a new, empty namespace.

        Raises:
            OSError: The kernel refuses (EPERM without CAP_SYS_ADMIN).

        """
        self.name = name
        self._reaper = reaper
        self.fd, self.native_devices = _in_thread(f"new {name}", _new_namespace)
        self.inode = os.fstat(self.fd).st_ino

    def close(self) -> None:
        """Let go of the namespace: without processes and sockets in it, it is gone."""
        os.close(self.fd)

    def call(self, function: Callable[[], T]) -> T:
        """Return what `function` returns, called in a thread of its own inside the namespace.

        Sockets made there belong to the namespace for ever, whichever thread uses them later.  What it raises is raised
        here.
        """

        def inside() -> T:
            setns(self.fd, CLONE_NEWNET)
            return function()

        return _in_thread(f"in {self.name}", inside)

    def devices(self) -> frozenset[str]:
        """Return the names of all network devices now in the namespace."""
        return self.call(_device_names)

    def popen(self, argv: Sequence[str], **kwargs: Any) -> subprocess.Popen[Any]:
        """Start a program inside the namespace; `kwargs` are those of :class:`subprocess.Popen`.

        Without an environment it has :data:`~netpolicy.environment.ENVIRONMENT`, never this process's own.
        It is killed at the latest when the lab ends, with all its descendants.
        """
        if kwargs.get("env") is None:
            kwargs["env"] = ENVIRONMENT
        return self.call(lambda: self._reaper.popen(argv, **kwargs))

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        input: str | None = None,  # noqa: A002 - named as in subprocess.run
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside the namespace to its end, in a session of its own, and return what it wrote (UTF-8).

        Without `input` its standard input is empty.  `timeout` is in seconds.

        Raises:
            subprocess.TimeoutExpired: It ran longer; its whole process group was killed.
            OSError: It could not be started.

        """
        process: subprocess.Popen[str] = self.popen(
            argv,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=env,
            start_new_session=True,
        )
        with process:
            try:
                output, errors = process.communicate(input, timeout=timeout)
            except BaseException:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(argv, process.returncode, output, errors)

    def __repr__(self) -> str:
        return f"Namespace({self.name!r}, fd={self.fd}, inode={self.inode})"


def _new_namespace() -> tuple[int, frozenset[str]]:
    unshare(CLONE_NEWNET)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY), _device_names()


def _device_names() -> frozenset[str]:
    return frozenset(name for _, name in socket.if_nameindex())


def _in_thread(name: str, function: Callable[[], T]) -> T:
    """Call `function` in a thread that nothing else uses, since what it does to the thread's namespaces stays."""
    result: Future[T] = Future()

    def body() -> None:
        try:
            value = function()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            result.set_exception(error)
        else:
            result.set_result(value)

    # A daemon: one stuck in a system call must not keep an interrupted process, and so the lab, alive.
    threading.Thread(target=body, name=name, daemon=True).start()
    return result.result()
