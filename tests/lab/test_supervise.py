"""An engine or a relay of a lab that ends is begun again; nothing passes meanwhile; three ends are told, and stay."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.lab import Lab
from conformance.lab.rooted import Root, compile_for
from conformance.lab.supervise import Supervisor, standing
from netpolicy.alerts import read_alerts, summarise
from netpolicy.alerts.read import sources
from tests.lab.small import small_topology
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("able")

_SECONDS = 5.0
"""Within which one is back."""
_NAME = "edge/wan"


@pytest.fixture(scope="module", name="lab")
def _lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    root = Root.find()
    if root is None:
        pytest.fail("there is no root with Suricata: make setup")
    topology = small_topology("supervised")
    build = tmp_path_factory.mktemp("supervised") / "build"
    compile_for(root, topology, build)
    with Lab(topology, build, root) as lab:
        yield lab


def _events(path: Path) -> list[str]:
    return [json.loads(line)["event"] for line in path.read_text("utf-8").splitlines()] if path.exists() else []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_it_is_back_within_seconds(lab: Lab, tmp_path: Path, how: signal.Signals) -> None:
    """Killed or stopped, an engine inspects again within five seconds of being found dead, as another process."""
    (_, engine) = next(iter(lab.engines.items()))
    before = engine.pid
    with Supervisor({_NAME: engine}, tmp_path / "events"):
        os.kill(before, how)
        begun = time.monotonic()
        assert until(lambda: _events(tmp_path / "events") == ["ended", "back"], seconds=2 * _SECONDS)
        took = time.monotonic() - begun
    assert took < _SECONDS + (2.5 if how is signal.SIGSTOP else 0.0)
    assert engine.pid != before
    assert engine.running
    (told,) = standing(tmp_path / "events").items()
    assert told[0] == _NAME
    assert re.fullmatch(r"back: it inspects, \S+; ends: 1", told[1])


def test_three_ends_are_enough(lab: Lab, tmp_path: Path) -> None:
    """After three ends in a minute it is not begun again, which is told."""
    (_, engine) = next(iter(lab.engines.items()))
    with Supervisor({_NAME: engine}, tmp_path / "daemons.jsonl"):
        for end in range(3):
            os.kill(engine.pid, signal.SIGKILL)
            wanted = ["ended", "back"] * end + ["ended", "back" if end < 2 else "given-up"]
            assert until(lambda wanted=wanted: _events(tmp_path / "daemons.jsonl") == wanted, seconds=2 * _SECONDS)  # type: ignore[misc]
        time.sleep(1.0)
        assert not engine.running
    assert standing(tmp_path / "daemons.jsonl")[_NAME].startswith("given-up: 3 ends in 60 s; closed")
    assert standing(tmp_path / "daemons.jsonl")[_NAME].endswith("; ends: 3")
    # An alert is what somebody has to look at.
    rows = summarise(alert for path in sources(tmp_path) for alert in read_alerts(path))
    assert [(row.firewall, row.signature, row.alerts) for row in rows] == [
        ("edge", "ended engine of wan", 3),
        ("edge", "given-up engine of wan", 1),
    ]
    engine.start()
