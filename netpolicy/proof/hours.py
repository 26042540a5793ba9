"""When flows are open, as sets of packets: the kernel's clock is part of what a ruleset sees."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from netpolicy.proof import fields
from netpolicy.proof.packetset import PacketSet, Space
from netpolicy.topology.model import Flow, Window

_SUNDAY = datetime(2024, 1, 7, tzinfo=UTC)
"""Any: days are numbered from it on, as the kernel does."""
_DAY = 24 * 60 * 60


def open_hours(space: Space, flow: Flow, timezone: str) -> PacketSet:
    """Return the packets that come while a flow is in effect.

    Args:
        space: Of the packets; its day and hour are in UTC.
        flow: With its windows and its last day, both in the network's time zone.
        timezone: IANA name of that zone, which has no daylight saving time.

    """
    found = space.true
    if flow.limits.windows:
        spans = [span for window in flow.limits.windows for span in _spans(window, ZoneInfo(timezone))]
        found = space.union(
            [space.where(fields.DAY, day) & space.where(fields.HOUR, first, last) for day, first, last in spans]
        )
    if flow.effective_until is not None:
        after = datetime.combine(flow.effective_until + timedelta(days=1), time.min, tzinfo=ZoneInfo(timezone))
        found &= space.where(fields.TIME, 0, int(after.timestamp()) - 1)
    return found


def _spans(window: Window, zone: ZoneInfo) -> Iterator[tuple[int, int, int]]:
    """Yield a window's days of the week in UTC, each with its first and last second."""
    length = _seconds(window.end) - _seconds(window.start)
    if length <= 0:
        length += _DAY
    for day in window.days:
        # The day of the week that has this number from Monday on, in the week after that Sunday.
        begins = datetime.combine(_SUNDAY.date() + timedelta(days=1 + day), window.start, tzinfo=zone)
        second = int((begins - _SUNDAY).total_seconds())
        end = second + length
        while second < end:
            midnight = (second // _DAY + 1) * _DAY
            until = min(end, midnight)
            yield second // _DAY % 7, second % _DAY, (until - 1) % _DAY
            second = until


def _seconds(when: time) -> int:
    return (when.hour * 60 + when.minute) * 60 + when.second
