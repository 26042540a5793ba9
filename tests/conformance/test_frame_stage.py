"""Stage `frame`: every shape at every interface, with engines and without; doors that stand open are found."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from conformance.expect import Expectation
from conformance.frames.shapes import shapes
from conformance.lab import Lab
from conformance.lab.rooted import Root, compile_for
from conformance.lab.scope import Scope
from conformance.outcome import Status, Verdict
from conformance.results import Results
from conformance.run import conform
from conformance.stages.frame import STAGE, run_frame_stage
from netpolicy.intent.routing import Routing
from tests.lab.small import small_topology

_SIDES = 8
"""Of two firewalls: SYNs come by one interface of each, answers by the other one, in two families."""


def _tried(build: Path, *, inline: bool) -> Results:
    topology, root = small_topology("shaped"), Root.find()
    assert root is not None, "make setup"
    results = Results()
    with Lab(topology, build, root, inline=inline) as lab, lab.isolated():
        expectation = Expectation(topology, Routing(topology), datetime.now(UTC))
        tried = run_frame_stage(lab, Scope(lab), expectation, list(topology.firewalls), results)
    assert tried == _SIDES * len(list(shapes()))
    return results


def _compiled(build: Path) -> None:
    root = Root.find()
    assert root is not None, "make setup"
    compile_for(root, small_topology("shaped"), build)


def test_stage_holds(tmp_path: Path) -> None:
    """As a stage of a run: in both labs each shape is denied, or its packet passes and nothing behind it does."""
    _compiled(tmp_path / "build")
    summary = conform(small_topology("shaped"), tmp_path / "build", stages=[STAGE])
    assert summary.results.outcomes == []
    assert summary.exit_code == 0
    counted = dict.fromkeys(Verdict, 0)
    for passed, cases in summary.results.passed.items():
        assert passed.stage == STAGE
        counted[Verdict(passed.verdict)] += cases
    assert counted == {Verdict.PERMIT: 2 * 3 * _SIDES, Verdict.DENY: 2 * (len(list(shapes())) - 3) * _SIDES}


def test_an_open_kernel_is_found(tmp_path: Path) -> None:
    """Without its frame table a kernel takes tags off, and passes what was in them."""
    _compiled(tmp_path / "build")
    assert {"1 802.1Q tags of VLAN 0", "6 802.1ad tags of VLAN 0"} <= _through(tmp_path / "build", inline=False)


def test_an_open_engine_is_found(tmp_path: Path) -> None:
    """Without its filter as well it passes up to three tags; what it cannot decode its signatures drop even so."""
    _compiled(tmp_path / "build")
    engine = tmp_path / "build/core/suricata/engine-wan.yaml"
    engine.write_text(re.sub(r" +bpf-filter: .*\n", "", engine.read_text()))
    through = _through(tmp_path / "build", inline=True)
    assert "1 802.1Q tags of VLAN 0" in through
    assert not {each for each in through if each.split()[0] in {"4", "5", "6", "7", "8"}}


def _through(build: Path, *, inline: bool) -> set[str]:
    """Return the shapes in which something passed the core, whose frame table is empty."""
    (build / "core/frames.nft").write_text("table netdev netpolicy_frames { }\n")
    found = [each for each in _tried(build, inline=inline).outcomes if each.status is Status.DEVIATION]
    assert {each.firewall for each in found} == {"core"}
    return {each.probe.split(",")[0] for each in found if each.observed.startswith("what is in it passed")}


def test_a_closed_way_shows_nothing(tmp_path: Path) -> None:
    """Where nothing passes at all, no shape counts as denied."""
    build = tmp_path / "build"
    _compiled(build)
    for firewall in ("edge", "core"):
        closed = build / firewall / "frames.nft"
        closed.write_text(closed.read_text().replace("ether type ip meta", "ether type 0x9999 meta"))
    results = _tried(build, inline=False)
    errors = {each.family for each in results.outcomes if each.status is Status.ERROR}
    assert errors == {4}
    assert results.passed.total() == _SIDES // 2 * len(list(shapes()))
