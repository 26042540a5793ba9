"""Replacing rulesets under load: the short form of ``benchmarks/reload.py``."""

from __future__ import annotations

from pathlib import Path

from conformance.lab import Lab
from conformance.reload import Method, measure
from netpolicy.build import compile_topology
from tests.lab.small import small_topology


def test_an_atomic_reload_leaks_nothing_and_loses_nothing_while_flushing_leaks(tmp_path: Path) -> None:
    """Forty reloads pass none of the flood and lose no exchange; the same flood does pass a flush, so it was there."""
    topology = small_topology("reload")
    compile_topology(topology, tmp_path / "build")
    with Lab(topology, tmp_path / "build") as lab:
        ours = measure(lab, Method.ATOMIC, 40)
        peer = measure(lab, Method.FLUSH_AND_LOAD, 10)
    assert ours.flooded > 10_000
    assert (ours.leaked, ours.lost) == (0, 0)
    assert ours.exchanges > 40
    assert peer.leaked > 0
