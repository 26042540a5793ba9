"""What is wrong with an input, and where: the one form in which every stage reports it."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from netpolicy.topology.model import Place


class Severity(enum.StrEnum):
    """Whether compilation can go on."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding in the input."""

    place: Place
    severity: Severity
    message: str
    """One sentence without a full stop; it quotes the offending text."""
    expected: str | None = None
    """What would have been right."""
    nearest: str | None = None
    """The nearest valid name to what stands there."""

    def __str__(self) -> str:
        """Return ``file:line:column: severity: message; expected …; did you mean '…'?``, fit for a terminal."""
        text = f"{self.place}: {self.severity}: {self.message}"
        if self.expected is not None:
            text += f"; expected {self.expected}"
        if self.nearest is not None:
            text += f"; did you mean '{self.nearest}'?"
        return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


class InputError(Exception):
    """The input is refused; holds all that is wrong with it, in the order of the files."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(sorted(diagnostics, key=lambda found: found.place))
        super().__init__("\n".join(str(found) for found in self.diagnostics))
