"""Which processors of a machine inspect, and which route.

An engine's thread that hands a packet on to a virtual device would do all that the kernel does with it after that by
itself: route, filter, deliver. With receive packet steering (the kernel's Documentation/networking/scaling.rst) other
processors take that over, and both go on at once.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

SYS = Path("/sys")
_WORD = 32
"""Bits between two commas of a mask in sysfs."""


@dataclass(frozen=True, slots=True)
class Processors:
    """A machine's processors by their work. With a single one, both are that."""

    inspecting: frozenset[int]
    routing: frozenset[int]

    @classmethod
    def divided(cls, available: Collection[int]) -> Processors:
        """Give the upper half to engines, which need more of them, and the rest to the kernel.

        Raises:
            ValueError: There is none.

        """
        if not available:
            raise ValueError("no processor")
        ordered = sorted(available)
        half = len(ordered) // 2
        return cls(frozenset(ordered[half:]), frozenset(ordered[:half] or ordered))

    @classmethod
    def here(cls) -> Processors:
        """Divide those that this process may run on."""
        return cls.divided(os.sched_getaffinity(0))


def steer(devices: Iterable[str], processors: Iterable[int], *, sys: Path = SYS) -> None:
    """Have `processors` do what the kernel does with packets that `devices` receive.

    Args:
        devices: Names in the network namespace that the calling thread's ``/sys`` shows.
        processors: Their numbers.
        sys: Where sysfs is.

    Raises:
        OSError: There is no such device or processor, or the kernel refuses.

    """
    wanted = mask(processors)
    for device in devices:
        queues = sorted((sys / "class/net" / device / "queues").glob("rx-*"))
        if not queues:
            raise FileNotFoundError(f"{sys}/class/net/{device}/queues: no receive queue")
        for queue in queues:
            (queue / "rps_cpus").write_text(wanted, encoding="ascii")


def confine(process: int, processors: Collection[int]) -> None:
    """Let every thread that `process`, by its pid, has now run on `processors` only.

    Raises:
        OSError: There is no such process or processor.

    """
    for thread in Path(f"/proc/{process}/task").iterdir():
        os.sched_setaffinity(int(thread.name), processors)


def mask(processors: Iterable[int]) -> str:
    """Return the bit mask of `processors` as sysfs takes it: hexadecimal words of 32 bits, the highest first."""
    bits = sum(1 << each for each in set(processors))
    words = [f"{bits & 0xFFFFFFFF:x}"]
    while bits := bits >> _WORD:
        words.insert(0, f"{bits & 0xFFFFFFFF:x}")
    first, *rest = words
    return ",".join((first, *(word.rjust(8, "0") for word in rest)))
