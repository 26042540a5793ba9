"""Diagrams, z3 and the evaluator say the same of random rulesets."""

from __future__ import annotations

from tests.proof.asking import second_opinion
from tests.proof.random_opinions import try_rulesets

RULESETS, PACKETS = 30, 20
ASKED = 10
"""How many of them what takes longest: which rules packets need, and which chains commute."""
CONTESTED = (97, 222)
"""Seeds about which they have disagreed: ``ct count`` drops later fragments in rules without a verdict."""


def test_random_rulesets() -> None:
    """All three agree on every ruleset; benchmarks/second_opinion.py asks about more of them."""
    with second_opinion():
        found = try_rulesets((*range(RULESETS), *CONTESTED), PACKETS, most=ASKED)
    assert found.disagreements == []
    assert found.too_big == []
    assert found.rulesets > RULESETS // 2
    assert 0 < found.passed < found.packets
    assert 0 < found.dead < found.parts
    assert 0 < found.unequal < found.orders
