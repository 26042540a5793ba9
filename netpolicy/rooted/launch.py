"""Runs a program inside another root, with a few directories of this one. Run as a file, with one JSON argument.

``{"root": DIR, "mounts": [[SOURCE, TARGET, WRITABLE], …], "argv": [PROGRAM, …]}``.  The mounts are in a mount namespace
of its own and are gone with the program.
"""

import ctypes
import json
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


plan = json.loads(sys.argv[1])
check(libc.unshare(_CLONE_NEWNS), "unshare")
mount("none", "/", _MS_REC | _MS_PRIVATE)
root = plan["root"]
mount(root, root, _MS_BIND)
mount("none", root, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID)
for path, target, writable in plan["mounts"]:
    mount(path, root + target, _MS_BIND)
    if not writable:
        mount("none", root + target, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
os.chroot(root)
os.chdir("/")
os.execv(plan["argv"][0], plan["argv"])  # noqa: S606 - no shell is wanted
