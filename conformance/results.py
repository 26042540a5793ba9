"""What a run has found: every case that did not pass in full, and passes counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from conformance.outcome import Expected, Outcome, Status, Verdict


@dataclass(frozen=True, slots=True, order=True)
class Passed:
    """Cases of one kind that passed."""

    stage: str
    firewall: str
    """Empty for cases from end to end."""
    verdict: str
    why: str
    """The flow of a permit; the reason, with the forbidden protocol, of a denial."""


@dataclass(slots=True)
class Results:
    """Collects outcomes; a hundred thousand passes must not cost a hundred thousand objects."""

    passed: Counter[Passed] = field(default_factory=Counter)
    matrix: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    """Source and destination to probe to the worst status or the verdict of all its cases."""
    outcomes: list[Outcome] = field(default_factory=list)
    """All that did not pass."""

    def add(self, outcome: Outcome) -> None:
        """Take one case."""
        if outcome.status is Status.PASS:
            self.add_pass(
                outcome.stage,
                outcome.firewall or "",
                (outcome.source, outcome.destination),
                outcome.probe,
                outcome.expected,
            )
            return
        self.outcomes.append(outcome)
        if outcome.stage == "matrix":
            self._mark((outcome.source, outcome.destination), outcome.probe, outcome.status.value)

    def extend(self, outcomes: Iterable[Outcome]) -> None:
        """Take several cases."""
        for outcome in outcomes:
            self.add(outcome)

    def add_pass(self, stage: str, firewall: str, ends: tuple[str, str], probe: str, expected: Expected) -> None:
        """Take one case, between a source and a destination, that passed."""
        self.passed[Passed(stage, firewall, expected.verdict.value, why(expected))] += 1
        if stage == "matrix":
            self._mark(ends, probe, expected.verdict.value)

    def count(self, status: Status) -> int:
        """Return how many cases ended so."""
        if status is Status.PASS:
            return self.passed.total()
        return sum(outcome.status is status for outcome in self.outcomes)

    def _mark(self, ends: tuple[str, str], probe: str, mark: str) -> None:
        cell = self.matrix.setdefault(ends, {})
        if _RANK.get(mark, 0) >= _RANK.get(cell.get(probe, ""), -1):
            cell[probe] = mark


_RANK = {
    Verdict.DENY.value: 0,
    Verdict.PERMIT.value: 1,
    Status.SKIP.value: 2,
    Status.ERROR.value: 3,
    Status.DEVIATION.value: 4,
    Status.FAULT.value: 5,
}


def why(expected: Expected) -> str:
    """Return what decides an expectation: a flow's id, or the reason with the protocol."""
    if expected.verdict is Verdict.PERMIT:
        return expected.flow or ""
    if expected.frame:
        return "frame"
    reason = expected.reason.value if expected.reason else "by the endpoint"
    return f"{reason} {expected.protocol}" if expected.protocol else reason
