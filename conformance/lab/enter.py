"""Running a command of the user's inside a node or firewall of a running lab."""

from __future__ import annotations

import difflib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from conformance.lab.errors import LabError
from conformance.lab.resolver import OVERLAYS
from conformance.lab.state import ROOT, LabState
from conformance.lab.syscalls import CLONE_NEWNET, CLONE_NEWPID, MS_BIND, mount, setns
from conformance.lab.sysfs import show_devices

NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""Exit codes for a command that could not be started, as of a shell."""

_FORWARDED = (signal.SIGTERM, signal.SIGHUP)
_LEFT_TO_COMMAND = (signal.SIGINT, signal.SIGQUIT)


def execute(state: LabState, owner: str, argv: Sequence[str], *, root: Path = ROOT) -> int:
    """Run `argv` in the namespace of `owner` with this process's terminal, and return its exit code.

    A command ended by a signal gives 128 and the signal's number.  This process itself moves into the namespace and a
    mount namespace of its own: it must have one thread only, and do nothing else afterwards.

    Raises:
        LabError: There is no such node or firewall, or the lab ended meanwhile, or the command cannot be started.

    """
    _enter(state, owner, root)
    environment = {**os.environ, "NETPOLICY_LAB": state.name, "NETPOLICY_NODE": owner}
    identity = Path(state.identities) / owner
    if identity.is_dir():
        environment["NETPOLICY_IDENTITY"] = str(identity)
    try:
        process = subprocess.Popen(argv, env=environment)
    except FileNotFoundError:
        raise CommandError(f"{argv[0]}: no such program", NOT_FOUND) from None
    except PermissionError as refused:
        raise CommandError(f"{argv[0]}: {refused.strerror}", NOT_EXECUTABLE) from None
    with _signals_to(process):
        code = process.wait()
    return code if code >= 0 else 128 - code


class CommandError(LabError):
    """The command could not be started."""

    code: int
    """The exit code a shell would give."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def _enter(state: LabState, owner: str, root: Path) -> None:
    held = state.namespaces.get(owner)
    if held is None:
        raise LabError(f"lab '{state.name}' has no node or firewall '{owner}'{_nearest(owner, state)}")
    with ExitStack() as stack:
        try:
            network = _open(stack, f"/proc/{state.holder.pid}/fd/{held.descriptor}")
            processes = _open(stack, f"/proc/{state.init.pid}/ns/pid")
        except FileNotFoundError:
            raise LabError(f"lab '{state.name}' has just ended") from None
        # Asked after the descriptors were opened: they cannot be those of a later process with the same number.
        if not (state.holder.lives() and state.init.lives()) or os.fstat(network).st_ino != held.inode:
            raise LabError(f"lab '{state.name}' has just ended")
        setns(network, CLONE_NEWNET)
        _cover_files(root / state.name)
        setns(processes, CLONE_NEWPID)


def _cover_files(directory: Path) -> None:
    """See the lab's names instead of the machine's, and the devices of this network namespace in ``/sys``."""
    show_devices()
    for name, covered in OVERLAYS.items():
        # A machine without one of them uses built-in defaults that ask nothing but the loopback device.
        if Path(covered).exists():
            mount(directory / name, covered, None, MS_BIND)


def _open(stack: ExitStack, path: str) -> int:
    descriptor = os.open(path, os.O_RDONLY)
    stack.callback(os.close, descriptor)
    return descriptor


def _nearest(owner: str, state: LabState) -> str:
    close = difflib.get_close_matches(owner, state.namespaces, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


@contextmanager
def _signals_to(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Hand signals sent to this process on; those of the terminal reach the command by themselves."""

    def forward(number: int, _frame: FrameType | None) -> None:
        process.send_signal(number)

    def leave(_number: int, _frame: FrameType | None) -> None:
        return

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    before |= {number: signal.signal(number, leave) for number in _LEFT_TO_COMMAND}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
