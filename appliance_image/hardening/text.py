"""An audit as a table for people, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from appliance_image.hardening.figures import Audit, Figure, Mark

_MARKS = {Mark.HOLDS: "✓", Mark.OVER: "✗", Mark.EXCEPTED: "·", Mark.TOLD: " ", Mark.UNKNOWN: "?"}
_NAME, _VALUE = 44, 12


def table(audit: Audit, *, everything: bool) -> Iterator[str]:
    """Yield lines.

    Args:
        audit: What was found.
        everything: Also Debian's own units, which no limit holds for.

    """
    for section in audit.sections:
        yield section.title
        for figure in section.figures:
            if everything or section.id != "units" or figure.mark is not Mark.TOLD:
                yield f"  {_line(figure)}"
        yield ""
    over = [figure for section in audit.sections for figure in section.over]
    unknown = sum(figure.mark is Mark.UNKNOWN for section in audit.sections for figure in section.figures)
    excepted = sum(figure.mark is Mark.EXCEPTED for section in audit.sections for figure in section.figures)
    verdict = f"{len(over)} over a limit" if over else "within every limit"
    yield f"{audit.subject}: {verdict}, {excepted} excepted for a reason, {unknown} not found out"


def document(audit: Audit) -> dict[str, Any]:
    """Return an audit as JSON has it."""
    return {
        "format": 1,
        "subject": audit.subject,
        "holds": audit.holds,
        "sections": [
            {
                "id": section.id,
                "title": section.title,
                "figures": [
                    {
                        "name": figure.name,
                        "value": figure.value,
                        "mark": str(figure.mark),
                        "limit": figure.limit,
                        "reason": figure.reason,
                    }
                    for figure in section.figures
                ],
            }
            for section in audit.sections
        ],
    }


def _line(figure: Figure) -> str:
    value = figure.value or "unknown"
    limit = f" (limit {figure.limit})" if figure.limit and figure.mark is not Mark.HOLDS else ""
    reason = f"  {figure.reason}" if figure.reason else ""
    return f"{_MARKS[figure.mark]} {figure.name:<{_NAME}} {value:<{_VALUE}}{limit}{reason}".rstrip()
