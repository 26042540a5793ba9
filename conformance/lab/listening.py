"""Which TCP sockets of a network namespace take connections."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LOCAL, _STATE, _INODE, _LISTEN = 1, 3, 9, "0A"
"""Columns of a table, and a state in it."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket."""

    port: int
    inode: int


def listeners(process: int, *versions: int) -> Iterator[Listener]:
    """Yield those of the namespace that a process is in, of IPv4 and IPv6 as asked for (proc_pid_net(5)).

    Raises:
        OSError: The process has ended.

    """
    for version in versions:
        table = Path(f"/proc/{process}/net/{'tcp' if version == 4 else 'tcp6'}")
        for line in table.read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[_STATE] == _LISTEN:
                yield Listener(int(fields[_LOCAL].rpartition(":")[2], 16), int(fields[_INODE]))
