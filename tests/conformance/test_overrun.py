"""A stage has its time: a firewall that is something else than a firewall does not keep a run waiting."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from conformance.outcome import Status
from conformance.run import LONGEST, OverrunError, conform, limited
from conformance.stages.matrix import STAGE as MATRIX
from tests.lab.small import small_topology

_BRIDGE = "link add br0 type bridge\nlink set dev lan master br0\nlink set dev wan master br0\nlink set dev br0 up\n"


def test_a_bridge_is_told_in_time(build: Path) -> None:
    """With nothing but a bridge added to ip.batch, the stage that has no answers ends, and is named."""
    path = build / "edge" / "ip.batch"
    path.write_text(path.read_text(encoding="utf-8") + _BRIDGE, encoding="utf-8")
    begun = time.monotonic()
    found = conform(small_topology("conformance"), build, stages=[MATRIX], longest={**LONGEST, MATRIX: 3.0})
    assert time.monotonic() - begun < 60
    assert found.exit_code == 1
    said = [each.observed for each in found.results.outcomes if each.status is Status.ERROR]
    assert f"stage '{MATRIX}' has overrun: it took more than 3 s, and was ended" in said


def test_what_waits_is_ended() -> None:
    """Whatever it waits for."""
    with pytest.raises(OverrunError, match="stage 'sleeping'"), limited("sleeping", 0.1):
        time.sleep(30)
    time.sleep(0.2)  # nothing comes after
