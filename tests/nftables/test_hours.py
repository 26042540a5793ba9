"""Service hours and last days in the kernel's terms."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netpolicy.nftables.hours import expiry_match, hour_matches
from netpolicy.topology.model import Weekday, Window

_NAMES = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def _windows() -> st.SearchStrategy[Window]:
    minutes = st.builds(time, st.integers(0, 23), st.integers(0, 59))
    days = st.lists(st.sampled_from(Weekday), min_size=1, max_size=7, unique=True).map(tuple)
    return st.builds(Window, days, minutes, minutes)


def _open_by_rules(matches: list[str], instant: datetime) -> bool:
    """Evaluate the emitted expressions as the kernel does: day and second of day, both in UTC, both ends included."""
    for match in matches:
        day_part, hour_part = match.split(" meta hour ")
        first, last = re.findall(r"(\d\d:\d\d:\d\d)", hour_part)
        days = re.findall(r'"(\w+)"', day_part)
        if _NAMES[instant.weekday()] in days and first <= f"{instant:%H:%M:%S}" <= last:
            return True
    return False


def _open_by_windows(windows: list[Window], local: datetime) -> bool:
    """Say from the definition whether a window is open: it began today or yesterday and has not ended."""
    for window in windows:
        for back in (0, 1):
            began = (local - timedelta(days=back)).replace(
                hour=window.start.hour, minute=window.start.minute, second=0, microsecond=0
            )
            length = (
                datetime.combine(local.date(), window.end) - datetime.combine(local.date(), window.start)
            ) % timedelta(days=1) or timedelta(days=1)
            if began.weekday() in {int(day) for day in window.days} and began <= local < began + length:
                return True
    return False


@settings(derandomize=True, max_examples=300, deadline=None)
@given(
    st.lists(_windows(), min_size=1, max_size=4),
    st.sampled_from(["Asia/Tokyo", "Etc/UTC", "Asia/Kathmandu", "America/Bogota"]),
    st.integers(0, 7 * 24 * 3600 - 1),
)
def test_the_kernel_is_open_exactly_when_a_window_is(windows: list[Window], zone: str, second: int) -> None:
    """The UTC expressions match at an instant if and only if a local window holds it, at edges too."""
    matches = list(hour_matches(windows, zone))
    edges = [
        (
            datetime(2026, 11, 2, tzinfo=ZoneInfo(zone))
            + timedelta(days=day, hours=at.hour, minutes=at.minute, seconds=off)
        )
        for window in windows
        for at in (window.start, window.end)
        for day in range(8)
        for off in (-1, 0)
    ]
    for local in (*edges, datetime(2026, 11, 2, tzinfo=ZoneInfo(zone)) + timedelta(seconds=second)):
        assert _open_by_rules(matches, local.astimezone(UTC)) == _open_by_windows(windows, local), local


def test_days_with_the_same_hours_share_a_rule() -> None:
    """Office hours of five days in Tokyo are one rule, because they do not cross midnight in UTC."""
    days = (Weekday.MON, Weekday.TUE, Weekday.WED, Weekday.THU, Weekday.FRI)
    assert list(hour_matches([Window(days, time(9), time(17))], "Asia/Tokyo")) == [
        'meta day { "Monday", "Tuesday", "Wednesday", "Thursday", "Friday" } meta hour "00:00:00"-"07:59:59"'
    ]


@pytest.mark.parametrize(
    ("zone", "expected"), [("Asia/Tokyo", "2027-03-31 15:00:00"), ("Etc/UTC", "2027-04-01 00:00:00")]
)
def test_the_last_day_ends_at_local_midnight(zone: str, expected: str) -> None:
    """The instant after a flow's last day is compared in UTC."""
    assert expiry_match(datetime(2027, 4, 1, tzinfo=ZoneInfo(zone))) == f'meta time >= "{expected}"'
