"""z3 and the diagrams say the same of the miniature network, and of builds edited by hand; so does the evaluator.

Of what is asked about one firewall, and whether connections get from everywhere to everywhere; of the other theorems
see :mod:`tests.proof.test_second_theorems`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from netpolicy.intent.check import check_topology
from netpolicy.proof.case import Case, prepare
from netpolicy.proof.fields import Family
from netpolicy.proof.model import Ruleset
from netpolicy.proof.theorems.reach import pairs, reach
from netpolicy.topology.model import Topology
from tests.docs.source import ROOT
from tests.proof.asking import second_opinion
from tests.proof.faults import EDITS, Edit
from tests.proof.second import Firewall, read_build
from tests.proof.z3_reach import connections_set, followed_connections

EDITED = "tokyo-fw"
THEOREM_OF = ("tokyo-fw", "shinagawa-line-fw", "centre-resident-fw", "tachikawa-internet-fw")
"""One firewall of each kind; benchmarks/second_opinion.py takes all of them."""


@cache
def _topology() -> Topology:
    return check_topology(ROOT / "topology.yaml").topology


def _read(build: Path, *firewalls: str) -> Mapping[str, Ruleset]:
    with second_opinion():
        return read_build(build, firewalls)


@pytest.mark.parametrize("name", sorted(_topology().firewalls))
def test_same_sets(firewalls: Mapping[str, Firewall], name: str) -> None:
    """What a firewall does, and what the topology demands of it, is the same set of packets by both."""
    firewall = firewalls[name]
    assert list(firewall.opinions.differences()) == []
    assert list(firewall.demands()) == []


@pytest.mark.parametrize("name", THEOREM_OF)
def test_same_answers(firewalls: Mapping[str, Firewall], name: str) -> None:
    """Theorems about one firewall have the same answer by both: exactness, and what may begin a connection."""
    firewall = firewalls[name]
    by_z3, by_diagrams, witnesses = firewall.answers()
    assert by_z3 == by_diagrams
    assert [complaint for each in witnesses for complaint in firewall.confirmed(*each)] == []
    assert list(firewall.picked()) == []
    assert list(firewall.opening().contradictions()) == []


def test_same_pairs(case: Case) -> None:
    """A search from firewall to firewall finds the connections that the diagrams find between all pairs."""
    reached, followed = reach(case), followed_connections(case)
    nothing: set[tuple[int, int, str]] = set()
    for origin in case.topology.segments:
        for end in (*case.topology.segments, *case.topology.firewalls):
            if end != origin:
                by_search = connections_set(case, followed[origin].get(end, nothing))
                assert reached.sets[origin].get(end, case.space.false) == by_search, (origin, end)
    assert list(pairs(case, reached)) == []


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_same_answers_to_edits(miniature: Path, tmp_path: Path, edit: Edit) -> None:
    """A build edited by hand is refused by both or by neither, and each confirms the other's packets."""
    shutil.copytree(miniature / EDITED, tmp_path / EDITED)
    edit.apply(tmp_path, EDITED)
    firewall = Firewall(prepare(_topology(), _read(tmp_path, EDITED), edit.family), EDITED)
    by_z3, by_diagrams, witnesses = firewall.answers()
    assert by_z3 == by_diagrams
    assert bool(by_z3) is not edit.holds
    assert [complaint for each in witnesses for complaint in firewall.confirmed(*each)] == []
    assert list(firewall.picked()) == []
    assert list(firewall.opinions.differences()) == []
    opened = [complaint[:20] for complaint in firewall.opening().contradictions()]
    assert bool(opened) is edit.opens, opened


def test_same_unknowns(miniature: Path) -> None:
    """The same limits and listeners make a difference by both."""
    firewall = Firewall(prepare(_topology(), _read(miniature, EDITED), Family.IPV4), EDITED)
    for way, by_z3, by_diagrams in firewall.depending():
        assert by_z3 == by_diagrams, way
