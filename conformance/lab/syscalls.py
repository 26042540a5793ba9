"""The few system calls that Python 3.11 does not offer. Each raises OSError as its counterpart in `os` would."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000

# asm-generic number: arm64, riscv64, loongarch64.
_SYS_GETTIMEOFDAY = {"x86_64": 96, "aarch64": 169, "riscv64": 169, "loongarch64": 169}

_libc = ctypes.CDLL(None, use_errno=True)


def setns(fd: int, kind: int) -> None:
    """Move this thread into the namespace `fd`; for CLONE_NEWPID, the children it will have (setns(2))."""
    _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), "setns")


def unshare(kind: int) -> None:
    """Give this thread a new namespace of `kind`; for CLONE_NEWPID, the children it will have (unshare(2))."""
    _check(_libc.unshare(ctypes.c_int(kind)), "unshare")


def mount(source: str | Path | None, target: str | Path, kind: str | None, flags: int) -> None:
    """Attach a file system (mount(2)), without data."""
    arguments = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), None), f"mount {target}")


def kernel_timezone() -> int:
    """Return the kernel's own time zone in minutes west of Greenwich (gettimeofday(2)).

    The C library's function always answers 0, so the system call itself is made.

    Raises:
        OSError: The number of the system call on this machine is not known (ENOSYS).

    """
    number = _SYS_GETTIMEOFDAY.get(platform.machine(), -1)
    zone = (ctypes.c_int * 2)()
    _check(_libc.syscall(ctypes.c_long(number), None, zone), "gettimeofday")
    return int(zone[0])


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
