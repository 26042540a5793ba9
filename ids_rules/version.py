"""The major versions of Suricata that rules are written for."""

from __future__ import annotations

import enum


class Suricata(enum.IntEnum):
    """A major version."""

    V7 = 7
    """7.0: Debian 12, from its backports."""
    V8 = 8
    """8.0: Debian 13, from its backports: what an appliance ships."""

    @property
    def window(self) -> int:
        """Bytes of the client's stream that rules see at once.

        Rules for 7 look at the longest ClientHello they take, 2 KiB, together with the segment after it.
        """
        return 4096 if self is Suricata.V7 else 2560

    @property
    def release(self) -> str:
        """As its configuration says it."""
        return f"{self.value}.0"


NEWEST = Suricata.V8
