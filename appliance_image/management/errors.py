"""What management refuses, and what goes wrong on its connections."""

from __future__ import annotations

_MOST_TEXT = 1000
_KEPT = frozenset("\n")


class RefusedError(Exception):
    """An appliance refuses: a peer, a request, or an operation; holds a text for people."""

    code: str
    """For programs and journals: a short word that stays the same."""
    retry_after: float | None
    """Seconds after which the same request may be granted, where that is known."""

    def __init__(self, code: str, text: str, *, retry_after: float | None = None) -> None:
        """Say why.

        Args:
            code: See :attr:`code`.
            text: For people; what a peer sent is made printable.
            retry_after: See :attr:`retry_after`.

        """
        super().__init__(printable(text))
        self.code = code
        self.retry_after = retry_after

    @property
    def text(self) -> str:
        """For people."""
        return str(self)


class LinkError(Exception):
    """A connection has failed: it ended early, was too slow, or its TLS was refused; says where and why."""


class SlowError(LinkError):
    """The time for it is over; what has come so far is not lost."""


def printable(text: str, most: int = _MOST_TEXT) -> str:
    """Return text that a terminal and a journal can take, of bounded length."""
    shown = "".join(c if c.isprintable() or c in _KEPT else f"\\x{ord(c):02x}" for c in text[:most])
    return shown + ("…" if len(text) > most else "")
