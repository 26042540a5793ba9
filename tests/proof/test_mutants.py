"""Every fault that makes a difference to some packet is found; benchmarks/mutation.py has more of them, and live."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest

from netpolicy.build import compile_topology
from netpolicy.topology.model import Assurance, Topology
from tests.proof.mutants import mutants
from tests.proof.score import EQUIVALENT, FOUND, SURVIVED, Scale

_PLACES = 2
"""At which each operator is tried."""


@pytest.mark.parametrize("assurance", list(Assurance))
def test_every_fault_is_found(topology: Topology, build: Path, assurance: Assurance) -> None:
    """No mutant that the diagrams tell from the original survives the theorems, inspected or relayed."""
    flows = {name: replace(flow, assurance=assurance) for name, flow in topology.flows.items()}
    changed = replace(topology, flows=flows)
    compile_topology(changed, build)
    scale = Scale(changed, build, "edge")
    fates: Counter[str] = Counter()
    operators, survived = set(), []
    for name, group in groupby(mutants((build / "edge/nftables.nft").read_text("utf-8")), lambda each: each.operator):
        for mutant in list(group)[:_PLACES]:
            fate = scale.weigh(mutant)
            fates[fate] += 1
            if fate == FOUND:
                operators.add(name)
            if fate == SURVIVED:
                survived.append(str(mutant))
    assert survived == []
    assert len(operators) >= 25
    assert fates[EQUIVALENT] > 0
