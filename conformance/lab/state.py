"""What a running lab leaves on disk, for other processes to find it: ``/run/netpolicy/lab/<topology id>/``.

Only files: the lab itself is in the kernel, held by the process that the state names.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from conformance.lab.errors import LabError

ROOT = Path("/run/netpolicy/lab")

_FILE = "state.json"


@dataclass(frozen=True, slots=True)
class Process:
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    start: int
    """When it started, in clock ticks since boot (field 22 of proc_pid_stat(5))."""
    boot: str
    """The boot that is meant."""

    @classmethod
    def of(cls, pid: int) -> Self:
        """Describe a living process; raises ProcessLookupError if there is none."""
        return cls(pid, _start_time(pid), _boot())

    def lives(self) -> bool:
        """Say whether this very process still runs; one that has ended but was not waited for does not."""
        try:
            return self.boot == _boot() and self.start == _start_time(self.pid)
        except ProcessLookupError:
            return False


@dataclass(frozen=True, slots=True)
class Held:
    """A namespace of the lab."""

    descriptor: int
    """In the lab's process: ``/proc/<pid>/fd/<descriptor>`` opens it."""
    inode: int


@dataclass(frozen=True, slots=True)
class LabState:
    """A lab that is up."""

    name: str
    """The topology's id."""
    holder: Process
    """The lab lives as long as this process."""
    init: Process
    """The first process of the PID namespace in which the lab's programs run."""
    namespaces: Mapping[str, Held]
    """By node or firewall id."""
    identities: str
    """A directory with one directory for each node and firewall that has an identity."""
    build: str
    engines: Mapping[str, str]
    """The events (EVE) of each inline engine, by firewall and interface."""
    relays: Mapping[str, str]
    """What each relay says, by firewall."""

    def write(self, directory: Path) -> None:
        """Store the state in `directory`, whole or not at all."""
        fresh = directory / f".{_FILE}"
        fresh.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        fresh.rename(directory / _FILE)

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """Return the state in `directory`, None if there is none.

        Raises:
            LabError: What stands there is not a state.

        """
        path = directory / _FILE
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            stored["holder"] = Process(**stored["holder"])
            stored["init"] = Process(**stored["init"])
            stored["namespaces"] = {owner: Held(**held) for owner, held in stored["namespaces"].items()}
            return cls(**stored)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise LabError(f"{path} is damaged ({error}); remove {directory} once no lab runs") from error


class Claim:
    """The exclusive right to run the lab of one name, held through a lock on its state directory.

    The kernel gives it back when the process that holds it ends; a process forked from it holds it as well.
    """

    def __init__(self, name: str, root: Path = ROOT) -> None:
        """Take the right and empty the directory of what a killed lab left there.

        Raises:
            LabError: A lab of this name runs.
            OSError: The directory cannot be made (not root).

        """
        self.directory = root / name
        self._lock = self._take()
        for entry in self.directory.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def _take(self) -> int:
        while True:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.directory.chmod(0o700)
            lock = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock).st_ino == _inode(self.directory):
                    return lock
            except BlockingIOError:
                os.close(lock)
                raise LabError(f"a lab '{self.directory.name}' is running already: netpolicy lab down") from None
            # The lab that just ended took its directory with it: begin anew.
            os.close(lock)

    def hand_over(self) -> None:
        """Leave the right to the child that was forked while it was held."""
        os.close(self._lock)

    def release(self) -> None:
        """Remove the directory and give the right back."""
        shutil.rmtree(self.directory)
        os.close(self._lock)


def running(root: Path = ROOT) -> dict[str, LabState]:
    """Return the labs that are up, by name. What killed ones left is passed over.

    Raises:
        LabError: A state file is damaged.

    """
    found: dict[str, LabState] = {}
    if root.is_dir():
        for directory in sorted(root.iterdir()):
            state = LabState.read(directory)
            if state is not None and state.holder.lives():
                found[state.name] = state
    return found


def choose(name: str | None, root: Path = ROOT) -> LabState:
    """Return the running lab `name`, or without a name the only one.

    Raises:
        LabError: There is no such lab, or there are several.

    """
    labs = running(root)
    if not labs:
        raise LabError("no lab is running: netpolicy lab up TOPOLOGY")
    if name is not None:
        if name not in labs:
            raise LabError(f"no lab '{name}' is running; running: {', '.join(labs)}")
        return labs[name]
    if len(labs) > 1:
        raise LabError(f"several labs are running, choose with --name: {', '.join(labs)}")
    return next(iter(labs.values()))


def remove_leftovers(root: Path = ROOT) -> tuple[str, ...]:
    """Remove what killed labs left on disk, and return their names."""
    removed: list[str] = []
    if root.is_dir():
        for directory in sorted(root.iterdir()):
            state = LabState.read(directory)
            if state is not None and not state.holder.lives():
                with suppress(LabError):  # another process is starting one there just now
                    Claim(directory.name, root).release()
                    removed.append(directory.name)
    return tuple(removed)


def _start_time(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None
    # The second field is the program's name in parentheses and may hold anything.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":
        raise ProcessLookupError(f"process {pid} has ended")
    return int(fields[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _inode(path: Path) -> int | None:
    """Return a path's inode, None if it has gone."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None
