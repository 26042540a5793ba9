"""Tables (CSV, RFC 4180), and the filling of templates from their rows."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from netpolicy.diagnostics import Diagnostic, InputError, Severity
from netpolicy.topology.fields import nearest_name, shown
from netpolicy.topology.findings import Findings, Spot
from netpolicy.topology.model import Place
from netpolicy.topology.source import Fields, Filled, Items, Key, Scalar, Tree, read_bytes

MAX_BYTES = 16 << 20
MAX_ROWS = 100_000
MAX_COLUMNS = 256

_COLUMN = re.compile(r"[a-z][a-z0-9_]*\Z")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Cell:
    """One value of a row."""

    text: str
    place: Place


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table."""

    cells: Mapping[str, Cell]
    """By column."""
    place: Place


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV file."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    content: bytes


def read_table(path: Path, name: str) -> Table:
    """Return a table whose first line names its columns.

    Raises:
        InputError: It cannot be read, is too large, is not CSV, or a row has not one cell for each column.

    """
    content = read_bytes(path, name, MAX_BYTES)
    text = content.decode("utf-8-sig")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    findings: list[Diagnostic] = []
    rows: list[Row] = []
    columns: tuple[str, ...] = ()
    before = 0
    try:
        for record in reader:
            line, before = before + 1, reader.line_num
            if not record or (columns and not any(cell.strip() for cell in record)):
                continue  # an empty line, or what spreadsheets leave of one: commas
            if not columns:
                if len(record) > MAX_COLUMNS:
                    text = f"this table has {len(record)} columns"
                    raise InputError([Diagnostic(Place(name, line, 1), Severity.ERROR, text, f"at most {MAX_COLUMNS}")])
                columns = tuple(record)
                findings.extend(_wrong_columns(name, columns, line))
            elif len(record) != len(columns):
                place = Place(name, line, 1)
                found = f"this row has {len(record)} cells"
                findings.append(Diagnostic(place, Severity.ERROR, found, f"{len(columns)}, one for each column"))
            elif len(rows) >= MAX_ROWS:
                raise InputError(
                    [Diagnostic(Place(name, line, 1), Severity.ERROR, "too many rows", f"at most {MAX_ROWS}")]
                )
            else:
                rows.append(_row(name, columns, record, line))
    except csv.Error as error:
        findings.append(Diagnostic(Place(name, before + 1, 1), Severity.ERROR, f"this is not CSV: {error}"))
    if not columns and not findings:
        findings.append(Diagnostic(Place(name, 1, 1), Severity.ERROR, f"'{name}' is empty", "a line of column names"))
    if findings:
        raise InputError(findings)
    return Table(name, columns, tuple(rows), content)


def _wrong_columns(name: str, columns: tuple[str, ...], line: int) -> list[Diagnostic]:
    found = []
    for number, column in enumerate(columns):
        place = Place(name, line, _start(columns, number))
        if not _COLUMN.match(column):
            expected = "lower-case letters, digits and '_', a letter first"
            found.append(Diagnostic(place, Severity.ERROR, f"{shown(column)} is not a column name", expected))
        elif column in columns[:number]:
            found.append(Diagnostic(place, Severity.ERROR, f"column '{column}' stands here twice", "each column once"))
    return found


def _row(name: str, columns: tuple[str, ...], record: list[str], line: int) -> Row:
    cells = {
        column: Cell(text.strip(), Place(name, line, _start(record, number)))
        for number, (column, text) in enumerate(zip(columns, record, strict=True))
    }
    return Row(cells, Place(name, line, 1))


def _start(record: list[str] | tuple[str, ...], number: int) -> int:
    """Return the 1-based column at which a cell begins, as in a file that quotes only what needs it."""
    quoted = ("," in text or '"' in text or "\n" in text for text in record[:number])
    width = sum(
        len(text) + 1 + (text.count('"') + 2 if quote else 0) for text, quote in zip(record, quoted, strict=False)
    )
    return width + 1


@dataclass(frozen=True, slots=True)
class Filling:
    """Fills the trees of one template from one row."""

    table: Table
    row: Row
    findings: Findings

    def tree(self, tree: Tree) -> Tree:
        """Return `tree` with the row's cells in place of ``{column}``."""
        if isinstance(tree, Scalar):
            return self._scalar(tree)
        if isinstance(tree, Items):
            return Items(tuple(self.tree(item) for item in tree.items), tree.place)
        items: dict[str, tuple[Key, Tree]] = {}
        for key, value in tree.items.values():
            filled = self.key(key)
            if filled.text in items:
                spot = Spot(filled.place, self.row.place, filled.cell)
                self.findings.error(spot, f"key '{filled.text}' is made here a second time", "each key once")
            items[filled.text] = (filled, self.tree(value))
        return Fields(items, tree.place)

    def key(self, key: Key) -> Key:
        """Return a key with the row's cells in place of ``{column}``."""
        text, cell = self._text(key.text, key.place)
        return Key(text, key.place, cell)

    def _scalar(self, scalar: Scalar) -> Scalar:
        if not isinstance(scalar.value, str) or "{" not in scalar.value:
            return scalar
        text, cell = self._text(scalar.value, scalar.place)
        return Scalar(Filled(text), scalar.place, cell)

    def _text(self, text: str, place: Place) -> tuple[str, Place | None]:
        cells: list[Place] = []

        def cell(match: re.Match[str]) -> str:
            found = self.row.cells.get(match[1])
            if found is None:
                self.findings.error(
                    Spot(place),
                    f"table '{self.table.name}' has no column '{match[1]}'",
                    "one of " + ", ".join(self.table.columns),
                    nearest_name(match[1], list(self.table.columns)),
                )
                return match[0]
            cells.append(found.place)
            return found.text

        return _PLACEHOLDER.sub(cell, text), next(iter(cells), None)
