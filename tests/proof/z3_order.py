"""Whether base chains of one hook and one priority commute, by z3 alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

import z3

from netpolicy.proof.fields import Family
from netpolicy.proof.model import Chain, Hook, Ruleset
from tests.proof.z3_exact import solved
from tests.proof.z3_judged import Unknowns
from tests.proof.z3_model import Formulas
from tests.proof.z3_packet import Symbols, both, either

_UNKNOWN_BEFORE, _FRAGMENTS_BEFORE = -200, -400


def unordered(ruleset: Ruleset, family: Family) -> Iterator[tuple[Chain, Chain]]:
    """Yield the pairs of base chains that see packets of a family and have one place."""
    seen = [chain for chain in ruleset.chains.values() if chain.base is not None and chain.id.sees(family)]
    for one, other in combinations(seen, 2):
        assert one.base is not None
        assert other.base is not None
        if (one.base.hook, one.base.priority) == (other.base.hook, other.base.priority):
            yield one, other


def order(host: str, ruleset: Ruleset, packet: Symbols) -> set[frozenset[str]]:
    """Return the pairs of base chains, by their names, for which there is a packet to which the order matters."""
    formulas = Formulas(ruleset, packet, Unknowns(host))
    return {
        frozenset((str(one.id), str(other.id)))
        for one, other in unordered(ruleset, packet.family)
        if solved(_matters(formulas, one, other)) is not None
    }


def _matters(formulas: Formulas, one: Chain, other: Chain) -> z3.BoolRef:
    comes, fresh = formulas.packet.valid(), formulas.fresh()
    passes, written = formulas.past(other, *formulas.past(one, comes, fresh))
    turned, rewritten = formulas.past(one, *formulas.past(other, comes, fresh))
    return either([z3.Xor(passes, turned), both(passes, turned, written.differs(rewritten))])


def crowded(ruleset: Ruleset) -> Ruleset:
    """Return a ruleset whose base chains have one priority at each hook, as far as connections are known alike."""
    priorities: dict[tuple[Hook, bool, bool], int] = {}
    chains = {}
    for id_, chain in ruleset.chains.items():
        if chain.base is None:
            chains[id_] = chain
            continue
        base = chain.base
        early = base.hook in {Hook.PREROUTING, Hook.OUTPUT}
        place = (base.hook, early and base.priority < _UNKNOWN_BEFORE, early and base.priority < _FRAGMENTS_BEFORE)
        priority = priorities.setdefault(place, base.priority)
        chains[id_] = replace(chain, base=replace(base, priority=priority))
    return Ruleset(chains, ruleset.collections)
