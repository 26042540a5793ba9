"""What is found wrong while a topology is read: collected, so that all of it is told at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from netpolicy.diagnostics import Diagnostic, InputError, Severity
from netpolicy.topology.model import Place

MAX_ROWS = 3
"""Findings that a template has in common with several rows of its table are told for so many of them."""
MAX_ERRORS = 1000
"""After so many, reading ends: nobody reads on, and a file could have one for every few bytes."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Where something stands; what a template made stands in the template and in a row."""

    place: Place
    row: Place | None = None
    """The table's row that the template was filled with."""
    cell: Place | None = None
    """The cell that the very text comes from."""


@dataclass(slots=True)
class Findings:
    """Collects errors and warnings."""

    error_count: int = 0
    _found: dict[Diagnostic, None] = field(default_factory=dict)
    _rows: dict[tuple[Place, Severity], set[Place]] = field(default_factory=dict)

    def error(self, spot: Spot, message: str, expected: str | None = None, nearest: str | None = None) -> None:
        """Add what forbids compiling.

        Raises:
            InputError: It is one too many; holds those before it.

        """
        if self.error_count >= MAX_ERRORS:
            text = f"there is more: the first {MAX_ERRORS} errors are told"
            raise InputError([*self.errors, Diagnostic(spot.place, Severity.ERROR, text)])
        self.error_count += 1
        self._add(spot, Severity.ERROR, message, expected, nearest)

    def warning(self, spot: Spot, message: str, expected: str | None = None) -> None:
        """Add what someone should look at."""
        self._add(spot, Severity.WARNING, message, expected, None)

    def add(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        """Add what another part has found."""
        self.error_count += sum(found.severity is Severity.ERROR for found in diagnostics)
        self._found.update(dict.fromkeys(diagnostics))

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """Return the errors, with one for the rows that were left out."""
        return (*(each for each in self._found if each.severity is Severity.ERROR), *self._left_out(Severity.ERROR))

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """Return the warnings by place, with one for the rows that were left out."""
        found = (
            *(each for each in self._found if each.severity is Severity.WARNING),
            *self._left_out(Severity.WARNING),
        )
        return tuple(sorted(found, key=lambda each: each.place))

    def _add(self, spot: Spot, severity: Severity, message: str, expected: str | None, nearest: str | None) -> None:
        place = spot.place
        if spot.row is not None:
            rows = self._rows.setdefault((spot.place, severity), set())
            rows.add(spot.row)
            if len(rows) > MAX_ROWS:
                return
            if spot.cell is not None:
                place = spot.cell
                message += f" (through the template at {spot.place})"
            else:
                message += f" (for {spot.row.file}, line {spot.row.line})"
        self._found[Diagnostic(place, severity, message, expected, nearest)] = None

    def _left_out(self, severity: Severity) -> tuple[Diagnostic, ...]:
        return tuple(
            Diagnostic(
                place, severity, f"the same goes for {len(rows) - MAX_ROWS} more rows of {next(iter(rows)).file}"
            )
            for (place, of), rows in self._rows.items()
            if of is severity and len(rows) > MAX_ROWS
        )
