"""Base chains of one hook and one priority commute: the kernel does not say which of them comes first."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from netpolicy.proof.case import Case, Finding
from netpolicy.proof.model import Chain, Hook
from netpolicy.proof.symbolic import Kernel, Sets, Written

ORDER = "order"


def unordered(case: Case, firewall: str) -> Iterator[tuple[Chain, Chain]]:
    """Yield the pairs of base chains whose order is not defined."""
    for hook in Hook:
        for one, other in combinations(case.judged[firewall].ruleset.hook(hook, case.space.family), 2):
            if one.base is not None and other.base is not None and one.base.priority == other.base.priority:
                yield one, other


def order(case: Case, firewall: str) -> Iterator[Finding]:
    """Yield pairs of base chains for which the order makes a difference."""
    space = case.space
    kernel = Kernel(firewall, case.judged[firewall].ruleset, space)
    everything: Sets = {Written(): space.valid}
    for one, other in unordered(case, firewall):
        first = kernel.chain(other, kernel.chain(one, everything))
        second = kernel.chain(one, kernel.chain(other, everything))
        if first != second:
            what = f"{one.id} and {other.id} have one priority, and their order makes a difference"
            yield Finding(ORDER, firewall, what)
