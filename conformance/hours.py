"""When a flow is open, as the topology says it: the clock's side of an expectation."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from netpolicy.topology.model import Limits, Window

_DAYS_AHEAD = 9
_INSTANT = timedelta(microseconds=1)


def open_at(limits: Limits, timezone: str, when: datetime) -> bool:
    """Tell whether a flow with `limits` is within its service hours.

    Args:
        limits: Without windows it is always open.
        timezone: IANA name of the zone the windows are in.
        when: Any instant, with its time zone.

    """
    if not limits.windows:
        return True
    local = when.astimezone(ZoneInfo(timezone))
    return any(begin <= local < end for window in limits.windows for begin, end in _around(window, local))


def seconds_to_edge(limits: Limits, timezone: str, when: datetime) -> float:
    """Return the seconds from `when` until the answer of :func:`open_at` changes, infinity if it never does."""
    local = when.astimezone(ZoneInfo(timezone))
    edges = {edge for window in limits.windows for span in _around(window, local) for edge in span if edge > local}
    # Windows that overlap or follow each other without a gap have edges at which nothing changes.
    changing = [edge for edge in edges if open_at(limits, timezone, edge) != open_at(limits, timezone, edge - _INSTANT)]
    return min(((edge - local).total_seconds() for edge in changing), default=math.inf)


def _around(window: Window, local: datetime) -> list[tuple[datetime, datetime]]:
    """Return the window's spans from yesterday's to next week's."""
    spans = []
    for days in range(-1, _DAYS_AHEAD):
        day = local.date() + timedelta(days=days)
        if day.weekday() not in window.days:
            continue
        begin = datetime.combine(day, window.start, tzinfo=local.tzinfo)
        end = datetime.combine(day, window.end, tzinfo=local.tzinfo)
        spans.append((begin, end if window.end > window.start else end + timedelta(days=1)))
    return spans
