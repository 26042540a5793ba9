"""The devices of a network namespace, in ``/sys``."""

from __future__ import annotations

from conformance.lab.syscalls import (
    CLONE_NEWNS,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    mount,
    unshare,
)


def show_devices() -> None:
    """Move this thread into a mount namespace of its own, in which ``/sys`` shows its network namespace.

    Raises:
        OSError: The kernel refuses.

    """
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
