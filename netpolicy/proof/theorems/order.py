"""Base chains of one hook and one priority commute: the kernel does not say which of them comes first."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from netpolicy.proof.alike import alike
from netpolicy.proof.case import Finding
from netpolicy.proof.judged import Judged
from netpolicy.proof.model import Chain, Hook
from netpolicy.proof.symbolic import Kernel
from netpolicy.proof.written import Sets, Written

ORDER = "order"


def unordered(judged: Judged) -> Iterator[tuple[Chain, Chain]]:
    """Yield the pairs of base chains whose order is not defined."""
    for hook in Hook:
        for one, other in combinations(judged.ruleset.hook(hook, judged.space.family), 2):
            if one.base is not None and other.base is not None and one.base.priority == other.base.priority:
                yield one, other


def order(judged: Judged) -> Iterator[Finding]:
    """Yield pairs of base chains for which the order makes a difference."""
    space = judged.space
    kernel = Kernel(judged.host, judged.ruleset, space)
    everything: Sets = {Written(): space.valid}
    for one, other in unordered(judged):
        first = kernel.chain(other, kernel.chain(one, everything))
        second = kernel.chain(one, kernel.chain(other, everything))
        if not alike(space, first, second):
            what = f"{one.id} and {other.id} have one priority, and their order makes a difference"
            yield Finding(ORDER, judged.host, what)
