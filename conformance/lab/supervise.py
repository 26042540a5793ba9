"""Engines and relays of a lab that is kept up: one that has ended is begun again, and nothing passes meanwhile.

An engine is the only way between its wire and the firewall, and a relayed flow has nowhere to go but the relay's
listener: both are closed while they are gone, whatever this does or fails to do.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from conformance.lab.engine import Engine
from conformance.lab.errors import LabError
from conformance.lab.relay import Relay

EVENTS = "engines/daemons.jsonl"
"""In the lab's directory: what became of engines and relays. A line has time, event and fields as an appliance's
journal has them: ``ended``, ``given-up``, ``back``; and here ``not-back``, when one could not be begun again."""
MOST, WITHIN = 3, 60.0
"""So many ends in so many seconds, and it is not begun again: somebody has to look."""
_LOOK = 0.1
_STOPPED = 2.0
"""Seconds for which a process may be stopped (SIGSTOP, a debugger) before it is taken for dead."""

Daemon = Engine | Relay


@dataclass(slots=True)
class _Watched:
    daemon: Daemon
    ends: deque[float] = field(default_factory=deque)
    stopped_since: float | None = None
    given_up: bool = False
    returning: bool = False


class Supervisor:
    """Looks after daemons, by name, while inside."""

    def __init__(self, daemons: Mapping[str, Daemon], events: Path) -> None:
        """Prepare it.

        Args:
            daemons: Engines by firewall and interface, relays by firewall; all of them run.
            events: Where it tells what happened, besides standard error.

        """
        self._watched = {name: _Watched(daemon) for name, daemon in daemons.items()}
        self._events = events
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._look, name="supervisor", daemon=True)
        self._returns: list[threading.Thread] = []

    def __enter__(self) -> Self:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look no more, and begin nothing again."""
        self._done.set()
        for thread in (self._thread, *self._returns):
            thread.join()

    def _look(self) -> None:
        while not self._done.wait(_LOOK):
            for name, each in self._watched.items():
                if not each.given_up and not each.returning and (why := _gone(each)) is not None:
                    self._ended(name, each, why)

    def _ended(self, name: str, each: _Watched, why: str) -> None:
        each.daemon.kill()
        now = time.monotonic()
        each.ends.append(now)
        while each.ends[0] < now - WITHIN:
            each.ends.popleft()
        self._tell(name, "ended", why)
        if len(each.ends) >= MOST:
            each.given_up = True
            self._tell(name, "given-up", f"{MOST} ends in {WITHIN:.0f} s; closed until the lab is brought up anew")
            return
        each.returning = True
        thread = threading.Thread(target=self._begin_again, args=(name, each), name=f"return {name}", daemon=True)
        self._returns.append(thread)
        thread.start()

    def _begin_again(self, name: str, each: _Watched) -> None:
        try:
            each.daemon.start()
            self._tell(name, "back", "it inspects" if isinstance(each.daemon, Engine) else "it listens")
        except (LabError, OSError) as failed:
            self._tell(name, "not-back", str(failed)[-500:])
        finally:
            each.stopped_since = None
            each.returning = False

    def _tell(self, name: str, event: str, why: str) -> None:
        when = datetime.now(UTC).isoformat(timespec="milliseconds")
        firewall, _, interface = name.partition("/")
        fields = {"firewall": firewall, "daemon": f"engine of {interface}" if interface else "relay", "why": why}
        line = json.dumps({"time": when, "event": event, "fields": fields}, ensure_ascii=False)
        with self._lock, self._events.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
            print(f"netpolicy: {when} {name}: {event}: {why}", file=sys.stderr, flush=True)


def standing(events: Path) -> dict[str, str]:
    """Return what was told last of each daemon that has ever ended, and how often it has; the others run."""
    last: dict[str, tuple[str, str]] = {}
    ends: Counter[str] = Counter()
    with contextlib.suppress(FileNotFoundError):
        for line in events.read_text(encoding="utf-8").splitlines():
            told = json.loads(line)
            event, fields = told["event"], told["fields"]
            interface = fields["daemon"].removeprefix("engine of ")
            name = fields["firewall"] if interface == "relay" else f"{fields['firewall']}/{interface}"
            ends[name] += event == "ended"
            last[name] = event, f"{fields['why']}, {told['time']}"
    return {name: f"{event}: {why}; ends: {ends[name]}" for name, (event, why) in last.items()}


def _gone(each: _Watched) -> str | None:
    """Return why a daemon has to be begun again, None if it runs."""
    try:
        pid = each.daemon.pid
    except LabError:
        return "its process has ended"
    if not _is_stopped(pid):
        each.stopped_since = None
        return None
    each.stopped_since = each.stopped_since or time.monotonic()
    return "its process was stopped" if time.monotonic() - each.stopped_since > _STOPPED else None


def _is_stopped(pid: int) -> bool:
    """Tell whether a process, or the one that stands for it in its namespace, is stopped (proc_pid_stat(5))."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] in "Tt"
    return False
