"""A lab in which one firewall runs elsewhere, and what conformance can tell of it from outside."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from conformance.elsewhere import STAGES, conform_elsewhere
from conformance.lab import Lab, LabError
from conformance.lab.scope import Scope
from conformance.outcome import Status
from conformance.probe.wire import TapCounts, wired
from netpolicy.build import compile_topology
from tests.lab.small import small_topology
from tests.vm.standin import stand_in

FIREWALL = "edge"


@pytest.fixture(scope="module", name="build")
def _build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("elsewhere") / "build"
    compile_topology(small_topology(), out)
    return out


def test_interfaces_are_taps(build: Path) -> None:
    """A firewall elsewhere has no namespace, and a tap for each interface; nobody can look into it."""
    with Lab(small_topology(), build, elsewhere={FIREWALL}) as lab:
        assert set(lab.wiring.taps) == {(FIREWALL, "lan"), (FIREWALL, "wan")}
        assert FIREWALL not in lab.namespaces
        assert lab.wire.devices() == lab.devices(lab.wire)
        with pytest.raises(LabError, match="runs elsewhere"):
            lab.counters(FIREWALL)


def test_nothing_counts_as_taken_without_a_card(build: Path) -> None:
    """Frames that nobody takes from a tap have not arrived."""
    topology = small_topology()
    with Lab(topology, build, elsewhere={FIREWALL}) as lab, lab.isolated():
        with wired(lab, topology.firewalls[FIREWALL], Scope(lab)) as wire:
            wire_frames = [bytes(60)] * 3
            assert wire.exchange("lan", wire_frames, lambda _frame: False, 0.1).arrived == set()
        with TapCounts(lab, {"lan": lab.wire_port(FIREWALL, "lan")}) as counts:
            assert counts.of("lan").taken == 0


def test_holds(build: Path) -> None:
    """All stages hold against a firewall that runs what was compiled; what was left out is said."""
    summary = conform_elsewhere(small_topology(), build, FIREWALL, stand_in)
    assert summary.results.outcomes == []
    assert summary.stages == STAGES
    passed = {(each.stage, each.verdict) for each in summary.results.passed}
    assert {(stage, "permit") for stage in ("matrix", "boundary", "exchange")} <= passed
    assert {(stage, "deny") for stage in STAGES} <= passed
    assert any(line.startswith("the counters") for line in summary.left_out)


@dataclass(frozen=True)
class Wrong:
    """A ruleset that is not the topology's."""

    pattern: str
    replacement: str
    status: Status


_OPEN = (r"policy drop;", "policy accept; accept;")


@pytest.mark.parametrize(
    "wrong",
    [
        Wrong(*_OPEN, Status.DEVIATION),
        Wrong(r"(?s)type filter hook forward .*?policy drop;", r"\g<0> drop;", Status.ERROR),
    ],
    ids=["open", "closed"],
)
def test_deviates(build: Path, tmp_path: Path, wrong: Wrong) -> None:
    """A firewall that runs something else is found out: what passes, and what proves nothing as nothing passes."""
    changed = tmp_path / "build"
    shutil.copytree(build, changed)
    ruleset, guard = (changed / FIREWALL / name for name in ("nftables.nft", "guard.nft"))
    text, count = re.subn(wrong.pattern, wrong.replacement, ruleset.read_text(encoding="utf-8"))
    assert count
    ruleset.write_text(text, encoding="utf-8")
    guard.write_text(re.sub(*_OPEN, guard.read_text(encoding="utf-8")), encoding="utf-8")
    summary = conform_elsewhere(small_topology(), changed, FIREWALL, stand_in, stages=["matrix"])
    assert wrong.status in {each.status for each in summary.results.outcomes}
    assert summary.exit_code == 1
