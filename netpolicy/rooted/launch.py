"""Runs a program inside another root, with a few directories of this one.

Run as a file: ``ROOT MOUNTS [SOURCE TARGET WRITABLE]… PROGRAM [ARGUMENT]…``, with the number of mounts, and for each
whether it is writable (``0`` or ``1``).  The mounts are in a mount namespace of its own and are gone with the program.
No JSON: to import what reads it takes longer than all the rest, and a proof runs some 80 programs.
"""

import ctypes
import os
import sys

_CLONE_NEWNS = 0x00020000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 2, 4, 32, 0x1000, 0x4000, 0x40000

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """Raise OSError if a system call failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, flags: int, kind: str | None = None) -> None:
    """Attach a file system (mount(2))."""
    arguments = [None if each is None else os.fsencode(each) for each in (source, target, kind)]
    check(libc.mount(*arguments, ctypes.c_ulong(flags), None), f"mount {target}")


root, count, *rest = sys.argv[1:]
places, argv = rest[: 3 * int(count)], rest[3 * int(count) :]
check(libc.unshare(_CLONE_NEWNS), "unshare")
mount("none", "/", _MS_REC | _MS_PRIVATE)
mount(root, root, _MS_BIND)
mount("none", root, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID)
for path, target, writable in zip(places[::3], places[1::3], places[2::3], strict=True):
    mount(path, root + target, _MS_BIND)
    if writable == "0":
        mount("none", root + target, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
os.chroot(root)
os.chdir("/")
os.execv(argv[0], argv)  # noqa: S606 - no shell is wanted
