"""Records of sessions and refusals: none is lost silently, and no peer can fill the disk with its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

_BURST, PER_SECOND = 32.0, 0.5
"""So many refusals are recorded one by one; of more, the next record tells how many there were."""


class Recorder:
    """Writes to the journal."""

    def __init__(
        self,
        record: Callable[..., None],
        clock: Callable[[], float] = time.monotonic,
        per_second: float = PER_SECOND,
    ) -> None:
        """Prepare it.

        Args:
            record: Takes an event and fields; raises RefusedError when it cannot be kept.
            clock: Seconds.
            per_second: Refusals that are recorded one by one for ever.

        """
        self._record = record
        self._clock = clock
        self._per_second = per_second
        self._lock = threading.Lock()
        self._left, self._at = _BURST, clock()
        self._unrecorded = 0

    def login(self, **fields: str) -> None:
        """Record a session, and what was not recorded before it.

        Raises:
            RefusedError: It cannot be kept, so the session must not be.

        """
        with self._lock:
            self._summary()
            self._record("login", source="management", **fields)

    def refused(self, fields: Mapping[str, str]) -> None:
        """Record a refusal, or count it.

        Raises:
            RefusedError: It cannot be kept; it is counted.

        """
        with self._lock:
            now = self._clock()
            self._left = min(_BURST, self._left + (now - self._at) * self._per_second)
            self._at = now
            if self._left < 1:
                self._unrecorded += 1
                return
            self._left -= 1
            self._unrecorded += 1
            self._record("refused", source="management", **fields, **self._counted(self._unrecorded - 1))
            self._unrecorded = 0

    def _summary(self) -> None:
        if self._unrecorded:
            self._record("refused", source="management", code="many", unrecorded=self._unrecorded)
            self._unrecorded = 0

    @staticmethod
    def _counted(number: int) -> dict[str, int]:
        return {"unrecorded": number} if number else {}
