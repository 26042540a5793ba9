"""The published baseline that kernel settings are held against: ``baseline.csv``, each line with its source.

Lines come from the Kernel Self-Protection Project's "Recommended Settings" and, for what it does not cover, from the
document that the line names. Options that Linux 6.12 has no more (CONFIG_DEBUG_CREDENTIALS, CONFIG_REFCOUNT_FULL and
the like) are left out. The column ``reason`` says why an appliance departs from a line; a departure without one is a
finding.
"""

from __future__ import annotations

import csv
import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance_image.hardening.figures import AuditError, Figure, Mark, Section

_TABLE = Path(__file__).with_name("baseline.csv")
_COLUMNS = ["kind", "name", "wanted", "or", "source", "reason"]
OFF, ABSENT = "off", "absent"


class Kind(enum.StrEnum):
    """Where a setting is made."""

    SYSCTL = "sysctl"
    CMDLINE = "cmdline"
    CONFIG = "config"


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting, and the values that will do."""

    kind: Kind
    name: str
    """A sysctl's with slashes, an option's of the kernel configuration without ``CONFIG_``."""
    wanted: tuple[str, ...]

    def __str__(self) -> str:
        values = "|".join(self.wanted)
        return f"{self.name}={values}" if values else self.name


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the baseline."""

    setting: Setting
    instead: Setting | None
    """What has the same effect."""
    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """The settings of an appliance; None where they are not known."""

    sysctl: Mapping[str, str] | None = None
    cmdline: Mapping[str, str] | None = None
    config: Mapping[str, str] | None = None

    def of(self, kind: Kind) -> Mapping[str, str] | None:
        """Return all of one kind."""
        return {Kind.SYSCTL: self.sysctl, Kind.CMDLINE: self.cmdline, Kind.CONFIG: self.config}[kind]

    def value(self, setting: Setting) -> str | None:
        """Return the value of a setting; None if it is not known."""
        known = self.of(setting.kind)
        return None if known is None else known.get(setting.name, ABSENT)

    def holds(self, setting: Setting) -> bool:
        """Tell whether a setting is known to be as wanted."""
        value = self.value(setting)
        # An option that a kernel does not have is one that is off.
        return value in setting.wanted or (setting.kind is Kind.CONFIG and value == ABSENT and OFF in setting.wanted)


def read_baseline(path: Path = _TABLE) -> list[Line]:
    """Read the table.

    Raises:
        AuditError: It is none.

    """
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.reader(stream, strict=True)
        if next(rows, None) != _COLUMNS:
            raise AuditError(f"{path} has other columns than {', '.join(_COLUMNS)}")
        try:
            return [_line(row) for row in rows]
        except (TypeError, ValueError) as wrong:
            raise AuditError(f"{path}:{rows.line_num}: {wrong}") from wrong


def section(found: Found, lines: list[Line], why_unknown: Mapping[Kind, str]) -> Section:
    """Return every line that does not hold, with its reason, and how many do.

    Args:
        found: What an appliance has.
        lines: The baseline.
        why_unknown: What to give so that a kind of settings would be known.

    """
    figures: list[Figure] = []
    for kind in Kind:
        mine = [each for each in lines if each.setting.kind is kind]
        if found.of(kind) is None:
            figures.append(Figure(f"{kind}: {len(mine)} lines", "", Mark.UNKNOWN, reason=why_unknown.get(kind, "")))
            continue
        departing = list(_departing(found, mine))
        figures.append(Figure(f"{kind}: lines that hold", f"{len(mine) - len(departing)} of {len(mine)}", Mark.TOLD))
        figures += departing
    return Section("kernel", "Kernel settings beside the baseline", tuple(figures))


def _departing(found: Found, lines: list[Line]) -> Iterator[Figure]:
    for line in lines:
        if found.holds(line.setting) or (line.instead is not None and found.holds(line.instead)):
            continue
        wanted = f"{line.setting}" + (f", or {line.instead.kind} {line.instead}" if line.instead else "")
        mark = Mark.EXCEPTED if line.reason else Mark.OVER
        value = found.value(line.setting) or "(no value)"
        yield Figure(f"{line.setting.kind} {line.setting.name}", value, mark, wanted, line.reason or line.source)


def _line(row: list[str]) -> Line:
    kind, name, wanted, instead, source, reason = row
    other = None
    if instead:
        other_kind, _, rest = instead.partition(" ")
        other_name, _, values = rest.partition("=")
        other = Setting(Kind(other_kind), other_name, tuple(values.split("|")))
    if not source:
        raise ValueError(f"{name} has no source")
    return Line(Setting(Kind(kind), name, tuple(wanted.split("|"))), other, source, reason)
