"""What an audit finds: figures beside their limits, and what could not be found out."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Mark(enum.StrEnum):
    """How a figure stands to its limit."""

    HOLDS = "holds"
    OVER = "over"
    EXCEPTED = "excepted"
    """Over the common limit, within one of its own, for a reason that is told."""
    TOLD = "told"
    """It has no limit: people judge it."""
    UNKNOWN = "unknown"
    """Not found out, which is never the same as none found."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of an audit."""

    name: str
    value: str
    """As people read it."""
    mark: Mark
    limit: str = ""
    reason: str = ""
    """Why it is so, or what it lacks."""


@dataclass(frozen=True, slots=True)
class Section:
    """Figures of one kind."""

    id: str
    title: str
    figures: tuple[Figure, ...]

    @property
    def over(self) -> tuple[Figure, ...]:
        """Those over their limits."""
        return tuple(each for each in self.figures if each.mark is Mark.OVER)


@dataclass(frozen=True, slots=True)
class Audit:
    """A whole audit."""

    subject: str
    sections: tuple[Section, ...]

    @property
    def holds(self) -> bool:
        """Whether no figure is over its limit."""
        return not any(each.over for each in self.sections)


class AuditError(Exception):
    """What is to be audited is not what it was said to be, or cannot be read."""


class LackingError(AuditError):
    """What an audit needs is not on this machine."""
