"""Service hours as the conformance run reckons them, with windows over midnight."""

from __future__ import annotations

import math
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.hours import open_at, seconds_to_edge
from netpolicy.topology.model import Limits, Weekday, Window

TOKYO = "Asia/Tokyo"
_EVERY_DAY = tuple(Weekday)
_DAY = timedelta(days=1)


def _limits(*windows: Window) -> Limits:
    return Limits(windows=windows)


def _tokyo(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+09:00")


OFFICE = _limits(Window((Weekday.MON, Weekday.FRI), time(8, 30), time(17, 15)))
NIGHT = _limits(Window((Weekday.SUN,), time(22), time(5)))


@pytest.mark.parametrize(
    ("limits", "when", "is_open"),
    [
        # 2026-11-23 is a Monday.
        (OFFICE, "2026-11-23T08:29:59.999999", False),
        (OFFICE, "2026-11-23T08:30:00", True),
        (OFFICE, "2026-11-23T17:14:59.999999", True),
        (OFFICE, "2026-11-23T17:15:00", False),
        (OFFICE, "2026-11-24T12:00:00", False),
        (OFFICE, "2026-11-27T12:00:00", True),
        # Sunday's window ends on Monday, and Saturday has none that could end on Sunday.
        (NIGHT, "2026-11-22T04:59:59", False),
        (NIGHT, "2026-11-22T21:59:59.999999", False),
        (NIGHT, "2026-11-22T22:00:00", True),
        (NIGHT, "2026-11-23T00:00:00", True),
        (NIGHT, "2026-11-23T04:59:59.999999", True),
        (NIGHT, "2026-11-23T05:00:00", False),
        (NIGHT, "2026-11-23T22:00:00", False),
    ],
)
def test_open(limits: Limits, when: str, is_open: bool) -> None:
    """The start belongs to a window, the end does not, and a window over midnight belongs to the day it starts on."""
    assert open_at(limits, TOKYO, _tokyo(when)) is is_open


def test_equal_ends_are_a_whole_day() -> None:
    """A window that ends at the time it starts lasts until that time of the following day."""
    limits = _limits(Window((Weekday.TUE,), time(9), time(9)))
    assert not open_at(limits, TOKYO, _tokyo("2026-11-24T08:59:59"))
    assert open_at(limits, TOKYO, _tokyo("2026-11-24T09:00:00"))
    assert open_at(limits, TOKYO, _tokyo("2026-11-25T08:59:59"))
    assert not open_at(limits, TOKYO, _tokyo("2026-11-25T09:00:00"))


def test_zone_of_the_instant_does_not_matter() -> None:
    """The same instant given in UTC is judged in the network's zone."""
    assert open_at(OFFICE, TOKYO, datetime(2026, 11, 22, 23, 30, tzinfo=UTC))
    assert not open_at(OFFICE, TOKYO, datetime(2026, 11, 23, 8, 30, tzinfo=UTC))


def test_without_windows_nothing_ever_changes() -> None:
    """A flow without service hours is always open, and no edge comes."""
    assert open_at(Limits(), TOKYO, _tokyo("2026-11-23T03:00:00"))
    assert seconds_to_edge(Limits(), TOKYO, _tokyo("2026-11-23T03:00:00")) == math.inf


@pytest.mark.parametrize(
    ("limits", "when", "seconds"),
    [
        (OFFICE, "2026-11-23T08:29:58.5", 1.5),
        (OFFICE, "2026-11-23T08:30:00", 8.75 * 3600),
        (OFFICE, "2026-11-23T17:15:00", 3 * 86400 + 15.25 * 3600),
        (NIGHT, "2026-11-23T04:59:59", 1.0),
        # A whole week but its seven open hours.
        (NIGHT, "2026-11-23T05:00:00", 7 * 86400 - 7 * 3600),
    ],
)
def test_edge(limits: Limits, when: str, seconds: float) -> None:
    """The next edge is the next begin or end, today's or next week's."""
    assert seconds_to_edge(limits, TOKYO, _tokyo(when)) == seconds


def test_edges_inside_an_open_time_are_none() -> None:
    """Windows that follow each other without a gap leave nothing to wait for."""
    always = _limits(Window(_EVERY_DAY, time(0), time(12)), Window(_EVERY_DAY, time(12), time(0)))
    assert seconds_to_edge(always, TOKYO, _tokyo("2026-11-23T11:59:59")) == math.inf
    joined = _limits(Window((Weekday.MON,), time(20), time(0)), Window((Weekday.TUE,), time(0), time(6)))
    assert seconds_to_edge(joined, TOKYO, _tokyo("2026-11-23T23:59:00")) == 6 * 3600 + 60


_WINDOWS = st.builds(
    Window,
    st.lists(st.sampled_from(Weekday), min_size=1, max_size=7, unique=True).map(tuple),
    st.times().map(lambda each: each.replace(second=0, microsecond=0)),
    st.times().map(lambda each: each.replace(second=0, microsecond=0)),
)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    windows=st.lists(_WINDOWS, min_size=1, max_size=3).map(tuple),
    when=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis wants them so
)
def test_nothing_changes_before_the_edge(windows: tuple[Window, ...], when: datetime) -> None:
    """The answer stays the same until the edge and is the other one at it; without one, it stays for a week."""
    limits = Limits(windows=windows)
    now = open_at(limits, TOKYO, when)
    seconds = seconds_to_edge(limits, TOKYO, when)
    end = when + (7 * _DAY if seconds == math.inf else timedelta(seconds=seconds))
    steps = [when + (end - when) * step / 50 for step in range(51)]
    assert all(open_at(limits, TOKYO, a) is now for a, _ in pairwise(steps))
    if seconds != math.inf:
        assert open_at(limits, TOKYO, end) is not now
