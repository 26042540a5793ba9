"""Service hours and last days, as the kernel compares them: in UTC."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from netpolicy.topology.hours import DAY, week_spans
from netpolicy.topology.model import Window

_DAY_NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_ANY_MONDAY = datetime(2024, 1, 1, tzinfo=UTC)


def hour_matches(windows: Iterable[Window], timezone: str) -> Iterator[str]:
    """Yield nft expressions, one of which matches whenever a window is open.

    Args:
        windows: Weekly windows in local time.
        timezone: An IANA name whose offset from UTC never changes (the compiler refuses others).

    """
    offset = _ANY_MONDAY.astimezone(ZoneInfo(timezone)).utcoffset() or timedelta()
    by_hours: dict[tuple[int, int], list[int]] = {}
    for start, end in week_spans(windows, offset):
        while_open = start
        while while_open < end:
            day = while_open // DAY
            until = min(end, (day + 1) * DAY)
            by_hours.setdefault((while_open - day * DAY, until - day * DAY), []).append(day)
            while_open = until
    for (start, end), days in sorted(by_hours.items()):
        names = ", ".join(f'"{_DAY_NAMES[day]}"' for day in sorted(days))
        day_match = f"meta day {{ {names} }}" if len(days) > 1 else f"meta day {names}"
        # The kernel's range includes both ends, and its clock ticks in seconds.
        yield f'{day_match} meta hour "{_clock(start)}"-"{_clock(end - 1)}"'


def expiry_match(expires: datetime) -> str:
    """Return the nft expression that matches from the instant `expires` on."""
    return f'meta time >= "{expires.astimezone(UTC):%Y-%m-%d %H:%M:%S}"'


def _clock(second: int) -> str:
    return f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
