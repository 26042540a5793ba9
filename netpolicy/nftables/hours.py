"""Service hours and last days, as the kernel compares them: in UTC."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from netpolicy.topology.model import Window

_DAY = 24 * 60 * 60
_WEEK = 7 * _DAY
_DAY_NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_ANY_MONDAY = datetime(2024, 1, 1, tzinfo=UTC)


def hour_matches(windows: Iterable[Window], timezone: str) -> Iterator[str]:
    """Yield nft expressions, one of which matches whenever a window is open.

    Args:
        windows: Weekly windows in local time.
        timezone: An IANA name whose offset from UTC never changes (the compiler refuses others).

    """
    by_hours: dict[tuple[int, int], list[int]] = {}
    for start, end in _union(windows, timezone):
        while_open = start
        while while_open < end:
            day = while_open // _DAY
            until = min(end, (day + 1) * _DAY)
            by_hours.setdefault((while_open - day * _DAY, until - day * _DAY), []).append(day)
            while_open = until
    for (start, end), days in sorted(by_hours.items()):
        names = ", ".join(f'"{_DAY_NAMES[day]}"' for day in sorted(days))
        day_match = f"meta day {{ {names} }}" if len(days) > 1 else f"meta day {names}"
        # The kernel's range includes both ends, and its clock ticks in seconds.
        yield f'{day_match} meta hour "{_clock(start)}"-"{_clock(end - 1)}"'


def expiry_match(expires: datetime) -> str:
    """Return the nft expression that matches from the instant `expires` on."""
    return f'meta time >= "{expires.astimezone(UTC):%Y-%m-%d %H:%M:%S}"'


def _union(windows: Iterable[Window], timezone: str) -> list[tuple[int, int]]:
    """Return when any window is open: disjoint, sorted intervals of seconds since Monday 00:00 UTC."""
    offset = _ANY_MONDAY.astimezone(ZoneInfo(timezone)).utcoffset() or timedelta()
    pieces: list[tuple[int, int]] = []
    for window in windows:
        start_of_day = _seconds(window.start.hour, window.start.minute, window.start.second)
        length = _seconds(window.end.hour, window.end.minute, window.end.second) - start_of_day
        if length <= 0:
            length += _DAY
        for day in window.days:
            start = (day * _DAY + start_of_day - int(offset.total_seconds())) % _WEEK
            pieces.append((start, min(start + length, _WEEK)))
            if start + length > _WEEK:
                pieces.append((0, start + length - _WEEK))
    merged: list[tuple[int, int]] = []
    for start, end in sorted(pieces):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _seconds(hours: int, minutes: int, seconds: int) -> int:
    return (hours * 60 + minutes) * 60 + seconds


def _clock(second: int) -> str:
    return f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
