"""Who is in the network namespaces of a lab, while it ends and after."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from conformance.lab.state import LabState


class Remains:
    """Network namespaces, held while inside, and the processes in them.

    A namespace is told by its inode, and the kernel gives the inode of one that is gone to the next that is made: to
    one of another lab, for example. Whoever wants to see that nobody is left has to hold them from before the end.
    """

    def __init__(self, process: int, descriptors: Iterable[int]) -> None:
        """Prepare it.

        Args:
            process: Which holds the namespaces.
            descriptors: Of the namespaces, in that process.

        """
        self._paths = [f"/proc/{process}/fd/{descriptor}" for descriptor in descriptors]
        self._exit = ExitStack()
        self._inodes: set[int] = set()

    @classmethod
    def of(cls, state: LabState) -> Self:
        """Prepare it for the nodes and firewalls of a lab; without any if that has ended."""
        descriptors = [held.descriptor for held in state.namespaces.values()] if state.holder.lives() else []
        return cls(state.holder.pid, descriptors)

    def __enter__(self) -> Self:
        """Hold them, as far as they are still there."""
        for path in self._paths:
            with suppress(FileNotFoundError, ProcessLookupError):
                descriptor = os.open(path, os.O_RDONLY)
                self._exit.callback(os.close, descriptor)
                self._inodes.add(os.fstat(descriptor).st_ino)
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of them."""
        self._exit.close()

    def processes(self) -> list[str]:
        """Return the number and name of each process in one of them."""
        found: list[str] = []
        for process in Path("/proc").glob("[0-9]*"):
            # Denied: a process with more rights than this one, so none that the lab started.
            with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                if (process / "ns/net").stat().st_ino in self._inodes:
                    found.append(f"{process.name} ({(process / 'comm').read_text().strip()})")
        return found
