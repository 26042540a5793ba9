"""How much was tried of each expression."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from conformance.modelled.bench import Loaded
from conformance.modelled.judge import Result


@dataclass(slots=True)
class Tally:
    """Sums over rulesets."""

    rulesets: Counter[str] = field(default_factory=Counter)
    """By expression: how many rulesets have it."""
    reached: Counter[str] = field(default_factory=Counter)
    """Packets that came to a rule with it."""
    matched: Counter[str] = field(default_factory=Counter)
    """Those that the rule matched."""
    disagreements: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    unsendable: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    failed: int = 0

    def add(self, loaded: Loaded, result: Result) -> None:
        """Add what came of one ruleset, whose rules say in their comments what is in them."""
        self.sent += result.sent
        self.unsendable += result.unsendable
        self.fates.update(result.fates)
        self.failed += len(result.disagreements)
        here: set[str] = set()
        for rule in loaded.ruleset.rules():
            unit = rule.chain, rule.number
            for name in (rule.comment or "").split(";"):
                if name:
                    here.add(name)
                    self.reached[name] += result.matched[rule.chain, rule.number - 1]
                    self.matched[name] += result.taken[unit]
        self.rulesets.update(here)
        for each in result.disagreements:
            for prediction in each.predictions:
                for step in prediction.judgement.steps:
                    if step.rule is not None and step.rule.comment:
                        self.disagreements.update(step.rule.comment.split(";"))

    def rows(self) -> Iterator[tuple[str, int, int, int, int]]:
        """Yield each expression with its figures."""
        for name in sorted(self.rulesets):
            yield name, self.rulesets[name], self.reached[name], self.matched[name], self.disagreements[name]
