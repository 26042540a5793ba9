"""Run by :mod:`agent.daemons` in a process of its own: a program that sees a bundle's files where daemons see them."""

from __future__ import annotations

import ctypes
import json
import os
import sys

_CLONE_NEWNS = 0x20000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000


def main() -> None:
    """Read ``{"mounts": [[source, target], …], "argv": […]}`` from the first argument, and become the program."""
    plan = json.loads(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.unshare(_CLONE_NEWNS), "unshare")
    _checked(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "/")
    for source, target in plan["mounts"]:
        _checked(libc.mount(os.fsencode(source), os.fsencode(target), None, _MS_BIND, None), target)
    argv = plan["argv"]
    os.execvp(argv[0], argv)  # noqa: S606 - that is what it is for


def _checked(result: int, about: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), about)


if __name__ == "__main__":
    main()
