"""The adversarial mutator, in short: random edits that the proof accepts let nothing through."""

from __future__ import annotations

from pathlib import Path

from benchmarks.evasion import CRASHED, NOT_LOADED, attack
from netpolicy.build import compile_topology
from tests.lab.small import small_topology

_SEED, _EDITS = 3, 60


def test_no_edit_evades(tmp_path: Path) -> None:
    """Of edits that nft takes, some are refused, some contradicted, and those that are accepted pass nothing more."""
    topology = small_topology("evasion")
    compile_topology(topology, tmp_path / "build")
    report = attack(topology, tmp_path / "build", ("edge",), seed=_SEED, edits=_EDITS, most=300)
    assert report.evasions == []
    assert report.fates[CRASHED] == 0
    assert report.fates.total() == _EDITS
    assert report.fates[NOT_LOADED] < _EDITS * 4 // 5
    assert len(report.fates) >= 4
