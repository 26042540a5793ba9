"""The serial console of an appliance: every line kept, the agent's and the initrd's stages understood."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from appliance_image.vm.errors import MachineError

T = TypeVar("T")

_STAGE = re.compile(
    r"netpolicy: (?P<stage>[\w@.-]+): (?P<status>ok|closed): (?P<text>.*?)(?: t=(?P<time>\d+(?:\.\d+)?))?$"
)
_CONTROL = re.compile(r"\x1b\[[0-9;?=]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
_LAST_LINES = 25


@dataclass(frozen=True, slots=True)
class Event:
    """A stage of the boot that an appliance has told."""

    stage: str
    ok: bool
    """False: it is closed, and stays so."""
    text: str
    guest_seconds: float | None
    """Since its kernel began, by its own clock."""
    seconds: float
    """Since power-on, by this machine's clock."""

    def __str__(self) -> str:
        return f"{self.seconds:6.1f} s  {self.stage}: {'ok' if self.ok else 'closed'}: {self.text}"


class Console:
    """Reads a serial line to its end in a thread of its own."""

    def __init__(self, stream: IO[bytes], log: Path, hear: Callable[[Event], None] = lambda _event: None) -> None:
        """Begin to read.

        Args:
            stream: What the serial line writes to.
            log: A file that gets all of it.
            hear: Told of every stage as it comes, from another thread.

        """
        self.log = log
        self._stream = stream
        self._hear = hear
        self._changed = threading.Condition()
        self._begun = time.monotonic()
        self._lines: list[str] = []
        self._events: list[Event] = []
        self._ended = False
        self._thread = threading.Thread(target=self._read, name="console", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Count seconds from now: this is power-on."""
        self._begun = time.monotonic()

    @property
    def events(self) -> list[Event]:
        """All stages so far."""
        with self._changed:
            return list(self._events)

    @property
    def lines(self) -> list[str]:
        """All whole lines so far, without escape sequences."""
        with self._changed:
            return list(self._lines)

    @property
    def ended(self) -> bool:
        """Whether the line has been hung up."""
        with self._changed:
            return self._ended

    def last_words(self) -> str:
        """Return the last lines, for a person."""
        return "\n".join(self.lines[-_LAST_LINES:])

    def await_event(self, wanted: Callable[[Event], bool], seconds: float, since: int = 0) -> Event:
        """Return the first stage from number `since` on that is wanted, as soon as it is told.

        Raises:
            MachineError: It was not told in time, or the line has ended; holds the last lines.

        """
        return self._await(lambda: next(filter(wanted, self._events[since:]), None), seconds)

    def await_line(self, pattern: str, seconds: float, since: int = 0) -> str:
        """Return the first line from number `since` on in which a regular expression is found.

        Raises:
            MachineError: There was none in time, or the line has ended; holds the last lines.

        """
        sought = re.compile(pattern)
        return self._await(lambda: next(filter(sought.search, self._lines[since:]), None), seconds)

    def await_end(self, seconds: float) -> None:
        """Wait until all is read, after QEMU has ended."""
        self._thread.join(seconds)

    def _await(self, find: Callable[[], T | None], seconds: float) -> T:
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                found = find()
                if found is not None:
                    return found
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    why = "the machine has ended" if self._ended else f"it was not told within {seconds:.0f} s"
                    last = "\n".join(self._lines[-_LAST_LINES:])
                    raise MachineError(f"{why}; the console's last lines:\n{last}")
                self._changed.wait(left)

    def _read(self) -> None:
        with self.log.open("ab", buffering=0) as log:
            for raw in self._stream:
                log.write(raw)
                self._take(_CONTROL.sub("", raw.decode(errors="replace")).strip())
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _take(self, line: str) -> None:
        found = _STAGE.search(line)
        seconds = time.monotonic() - self._begun
        event = None
        if found is not None:
            told = float(found["time"]) if found["time"] else None
            event = Event(found["stage"], found["status"] == "ok", found["text"], told, seconds)
        with self._changed:
            self._lines.append(line)
            if event is not None:
                self._events.append(event)
            self._changed.notify_all()
        if event is not None:
            self._hear(event)
