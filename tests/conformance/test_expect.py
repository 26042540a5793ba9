"""Verdicts that the topology demands, where the clock or a site's state decides."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from ipaddress import ip_address
from zoneinfo import ZoneInfo

import pytest

from conformance.expect import Expectation, Packet
from conformance.outcome import Expected, Verdict
from netpolicy.intent.routing import Routing
from netpolicy.reasons import DenyReason
from netpolicy.topology.model import Limits, Topology, Weekday, Window
from tests.lab.small import PORT, small_topology

_ZONE = ZoneInfo("Asia/Tokyo")
_ALPHA, _GAMMA = ip_address("10.77.1.10"), ip_address("10.77.3.10")
_NOTICE = Packet("lan", _ALPHA, _GAMMA, "tcp", PORT)


def _expectation(when: datetime, topology: Topology | None = None) -> Expectation:
    topology = topology or small_topology()
    return Expectation(topology, Routing(topology), when)


def _noon(day: int = 24) -> datetime:
    return datetime(2026, 11, day, 12, tzinfo=_ZONE)


@pytest.mark.parametrize(
    ("packet", "verdict", "reason"),
    [
        (_NOTICE, Verdict.PERMIT, None),
        (replace(_NOTICE, port=PORT + 1), Verdict.DENY, DenyReason.NO_FLOW),
        (replace(_NOTICE, port=80), Verdict.DENY, DenyReason.FORBIDDEN),
        (replace(_NOTICE, transport="udp"), Verdict.DENY, DenyReason.NO_FLOW),
        (replace(_NOTICE, ingress="wan"), Verdict.DENY, DenyReason.SPOOFED_SOURCE),
        (replace(_NOTICE, source=ip_address("10.77.1.1")), Verdict.DENY, DenyReason.SPOOFED_SOURCE),
        (replace(_NOTICE, source=ip_address("10.77.1.255")), Verdict.DENY, DenyReason.SPOOFED_SOURCE),
        (replace(_NOTICE, destination=ip_address("198.51.100.1")), Verdict.DENY, DenyReason.NO_ROUTE),
        (replace(_NOTICE, destination=ip_address("10.77.2.255")), Verdict.DENY, DenyReason.NO_ROUTE),
        (replace(_NOTICE, destination=ip_address("10.77.1.1")), Verdict.DENY, DenyReason.INPUT),
        (replace(_NOTICE, destination=ip_address("10.77.1.11")), Verdict.DENY, DenyReason.NO_PATH),
        (replace(_NOTICE, oddity=DenyReason.FRAGMENT, ingress="wan"), Verdict.DENY, DenyReason.FRAGMENT),
        (replace(_NOTICE, oddity=DenyReason.INVALID), Verdict.DENY, DenyReason.INVALID),
    ],
)
def test_reasons_are_tried_in_their_order(packet: Packet, verdict: Verdict, reason: DenyReason | None) -> None:
    """The first reason that fits is the one expected."""
    expected, egress = _expectation(_noon()).judge("edge").judge(packet)
    assert (expected.verdict, expected.reason) == (verdict, reason)
    assert egress == ("wan" if verdict is Verdict.PERMIT else None)


def test_a_denial_names_the_closest_flow() -> None:
    """Next to a permit, and on its way back, the flow it nearly is."""
    judge = _expectation(_noon()).judge("core")
    for packet in (Packet("wan", _ALPHA, _GAMMA, "tcp", PORT - 1), Packet("lan", _GAMMA, _ALPHA, "tcp", PORT)):
        assert judge.judge(packet)[0] == Expected(Verdict.DENY, "notice", DenyReason.NO_FLOW)


def test_the_last_day_ends_at_midnight_of_the_network() -> None:
    """A flow passes on its last day, and not after it, in the network's time zone."""
    topology = small_topology()
    topology = replace(
        topology, flows={"notice": replace(topology.flows["notice"], effective_until=date(2026, 11, 24))}
    )
    before = _expectation(datetime(2026, 11, 24, 23, 59, 59, tzinfo=_ZONE), topology)
    assert before.judge("edge").judge(_NOTICE)[0].verdict is Verdict.PERMIT
    assert before.seconds_to_change() == 1.0
    after = _expectation(datetime(2026, 11, 25, tzinfo=_ZONE), topology)
    assert after.judge("edge").judge(_NOTICE)[0].reason is DenyReason.EXPIRED
    assert after.seconds_to_change() == math.inf


def test_the_clock_can_be_set_anew() -> None:
    """What was open is expected closed once its window is over."""
    limits = Limits(windows=(Window((Weekday.TUE,), time(8, 30), time(17, 15)),))
    topology = small_topology()
    topology = replace(topology, flows={"notice": replace(topology.flows["notice"], limits=limits)})
    expectation = _expectation(_noon(), topology)
    judge = expectation.judge("edge")
    assert judge.judge(_NOTICE)[0].verdict is Verdict.PERMIT
    assert expectation.seconds_to_change() == 5.25 * 3600
    expectation.when = _noon(25)
    assert judge.judge(_NOTICE)[0].reason is DenyReason.OUTSIDE_HOURS


def test_a_change_is_waited_out() -> None:
    """What would take longer than a flow is open for begins after it has closed; then there is nothing to wait for."""
    opens = datetime.now(_ZONE)
    closes = opens + timedelta(seconds=3)
    opened = tuple(Window((Weekday(day),), opens.time(), closes.time()) for day in range(7))
    topology = small_topology()
    topology = replace(topology, flows={"notice": replace(topology.flows["notice"], limits=Limits(windows=opened))})
    expectation, said = _expectation(opens, topology), list[str]()
    assert expectation.closed(topology.flows["notice"]) is None
    expectation.advance(60.0, said.append)
    assert expectation.closed(topology.flows["notice"]) is DenyReason.OUTSIDE_HOURS
    assert expectation.when > closes
    assert all(line.startswith("a flow opens or closes in ") for line in said)
    said.clear()
    expectation.advance(60.0, said.append)
    assert said == []


def test_a_site_that_is_not_connected_is_cut_off_both_ways() -> None:
    """Not even its flow crosses its border."""
    topology = small_topology()
    sites = {name: replace(site, connected=name != "town") for name, site in topology.sites.items()}
    judge = _expectation(_noon(), replace(topology, sites=sites)).judge("edge")
    assert judge.judge(_NOTICE)[0].reason is DenyReason.NOT_CONNECTED
    back = Packet("wan", _GAMMA, _ALPHA, "tcp", PORT)
    assert judge.judge(back)[0].reason is DenyReason.NOT_CONNECTED
