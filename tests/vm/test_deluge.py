"""A flood of forbidden frames from before a firewall is there."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conformance.expect import Expectation
from conformance.lab import Lab
from conformance.lab.scope import Scope
from conformance.probe.deluge import Deluge, Downpour, forbidden_frames
from conformance.probe.shape import number_of
from conformance.probe.wire import wired
from netpolicy.build import compile_topology
from netpolicy.intent.routing import Routing
from netpolicy.topology.model import Topology
from tests.lab.small import small_topology
from tests.vm.standin import stand_in

FIREWALL = "edge"


@pytest.fixture(scope="module", name="topology")
def _topology() -> Topology:
    return small_topology()


@pytest.fixture(scope="module", name="build")
def _build(topology: Topology, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("deluge") / "build"
    compile_topology(topology, out)
    return out


def _flooded(topology: Topology, build: Path, seconds: float) -> tuple[Downpour, Downpour]:
    """Flood a firewall from before it is there; return what was counted before, and at the end."""
    expectation = Expectation(topology, Routing(topology), datetime.now(UTC))
    firewall = topology.firewalls[FIREWALL]
    with (
        Lab(topology, build, elsewhere={FIREWALL}) as lab,
        lab.isolated(),
        wired(lab, firewall, Scope(lab)) as wire,
        Deluge(expectation, firewall, wire) as deluge,
    ):
        time.sleep(0.5)
        before = deluge.count()
        with stand_in(lab):
            end = time.monotonic() + seconds
            while deluge.count().opened is None and time.monotonic() < end:
                time.sleep(0.1)
            time.sleep(0.5)
            return before, deluge.count()


def test_nothing_forbidden_passes(topology: Topology, build: Path) -> None:
    """Before the firewall is there its cards take nothing; then the flood, of which only what is permitted passes."""
    before, after = _flooded(topology, build, 10.0)
    assert all(count > 0 for count in before.sent.values())
    assert all(each.taken == 0 for each in before.taken.values())
    assert before.opened is None
    assert after.opened is not None
    assert after.permitted > 0
    assert all(each.taken > 100 for each in after.taken.values())
    assert after.passed == []


def test_an_open_firewall_is_seen(topology: Topology, build: Path, tmp_path: Path) -> None:
    """What a firewall without rules lets through is counted: the flood can pass, where nothing stops it."""
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "manifest.json").write_bytes((build / "manifest.json").read_bytes())
    for firewall in topology.firewalls:
        place = tmp_path / "build" / firewall
        place.mkdir()
        for each in ("sysctl.conf", "ip.batch", "ip6.batch", "forwarding.conf"):
            (place / each).write_bytes((build / firewall / each).read_bytes())
        for each in ("guard.nft", "nftables.nft"):
            (place / each).write_text("add table inet netpolicy\nadd counter inet netpolicy deny_no_flow\n")
        (place / "frames.nft").write_text("table netdev netpolicy_frames { }\n")
    _, after = _flooded(topology, tmp_path / "build", 5.0)
    assert after.passed


def test_frames_are_forbidden_and_known_again(topology: Topology) -> None:
    """There are some for each interface, each with its own number."""
    expectation = Expectation(topology, Routing(topology), datetime.now(UTC))
    frames = forbidden_frames(expectation, topology.firewalls[FIREWALL])
    for interface in ("lan", "wan"):
        numbers = [number_of(frame) for frame in frames[interface]]
        assert len(numbers) > 100
        assert None not in numbers
        assert len(set(numbers)) == len(numbers)
