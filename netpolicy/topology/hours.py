"""Weekly windows, laid side by side."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import time, timedelta

from netpolicy.topology.model import Window

DAY = 24 * 60 * 60
WEEK = 7 * DAY
"""Seconds."""


def week_spans(windows: Iterable[Window], offset: timedelta = timedelta()) -> list[tuple[int, int]]:
    """Return when any window is open: disjoint, sorted intervals of seconds since Monday 00:00, the end excluded.

    Args:
        windows: In local time.
        offset: Of local time from that of the result.

    """
    pieces: list[tuple[int, int]] = []
    for window in windows:
        start_of_day = _second(window.start)
        length = _second(window.end) - start_of_day
        if length <= 0:
            length += DAY
        for day in window.days:
            start = (day * DAY + start_of_day - int(offset.total_seconds())) % WEEK
            pieces.append((start, min(start + length, WEEK)))
            if start + length > WEEK:
                pieces.append((0, start + length - WEEK))
    merged: list[tuple[int, int]] = []
    for start, end in sorted(pieces):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def whole_week(windows: Iterable[Window]) -> bool:
    """Tell whether windows leave no second of the week out."""
    return week_spans(windows) == [(0, WEEK)]


def _second(when: time) -> int:
    return (when.hour * 60 + when.minute) * 60 + when.second
