"""Random rulesets, one after the other, held against the kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

from conformance.modelled.bench import RulesetError, benches
from conformance.modelled.expressions import INTERFACES
from conformance.modelled.judge import Disagreement, hold
from conformance.modelled.plan import Plan
from conformance.modelled.points import points
from conformance.modelled.rulesets import certain, ruleset
from conformance.modelled.tally import Tally
from netpolicy.proof.fields import Family
from netpolicy.proof.read import LoadError
from netpolicy.proof.terms import RefusedError


@dataclass(slots=True)
class Trial:
    """What came of them."""

    tally: Tally = field(default_factory=Tally)
    rulesets: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """By reason: what nft prints so that the model cannot know what it means, or cannot print."""
    unloaded: Counter[str] = field(default_factory=Counter)
    """What nft does not take: a fault of the generator."""
    disagreements: list[tuple[int, Disagreement]] = field(default_factory=list)
    """With the seed of the ruleset."""


def try_rulesets(seeds: Iterable[int], packets: int) -> Trial:
    """Load random rulesets and send packets of both families through each.

    Args:
        seeds: One for each ruleset.
        packets: Of each family and ruleset.

    """
    found = Trial()
    plan = Plan(INTERFACES)
    with benches(plan) as bench:
        for seed in seeds:
            try:
                loaded = bench.load(ruleset(seed))
            except RulesetError as refused:
                found.unloaded[str(refused).splitlines()[0]] += 1
                continue
            except RefusedError as refused:
                found.refused[refused.what] += 1
                continue
            except LoadError as failed:
                found.refused[str(failed)] += 1
                continue
            random = Random(seed)  # noqa: S311 - the same packets every time
            wished = [
                packet
                for family in Family
                for packet in points(loaded.ruleset, family, plan.interfaces, packets, random)
            ]
            result = hold(bench, loaded, wished, certain)
            found.rulesets += 1
            found.tally.add(loaded, result)
            found.disagreements.extend((seed, each) for each in result.disagreements)
    return found
