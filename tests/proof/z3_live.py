"""What no packet needs of a ruleset, and which flows have packets in common, by z3 alone."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import z3

from netpolicy.proof import fields
from netpolicy.proof.model import Hook, Note, Rule, Ruleset, Verdict, VerdictKind
from netpolicy.proof.packetset import Space
from netpolicy.proof.theorems.live import is_shortcut
from tests.proof.z3_exact import UndecidedError, solved
from tests.proof.z3_judged import Unknowns
from tests.proof.z3_model import Formulas, Matched, Visit
from tests.proof.z3_packet import Symbols, both, either, opposite

_FINAL = {VerdictKind.ACCEPT, VerdictKind.DROP}


@dataclass(slots=True, repr=False)
class Needs:
    """Conditions, over a packet that comes from anywhere, for it to need a rule or an element."""

    formulas: Formulas
    _entered: dict[int, z3.BoolRef] = field(default_factory=dict)

    @classmethod
    def of(cls, ruleset: Ruleset, packet: Symbols, unknowns: Unknowns, *, marked: bool = False) -> Needs:
        """Return those of a ruleset; `marked` packets may have been written on by other tables."""
        formulas = Formulas(ruleset, packet, unknowns)
        fresh = packet.valid() if marked else both(packet.valid(), packet.unmarked())
        inside = {"lo": packet.at(fields.IIF, "lo"), "wire": opposite(packet.at(fields.IIF, "", "lo"))}
        leaves = opposite(packet.at(fields.OIF, ""))
        for each in inside.values():
            formulas.through((Hook.PREROUTING, Hook.INPUT), both(fresh, each))
        across = both(fresh, inside["wire"], leaves)
        formulas.through((Hook.PREROUTING, Hook.FORWARD, Hook.POSTROUTING), across)
        formulas.through((Hook.OUTPUT, Hook.POSTROUTING), both(fresh, packet.at(fields.IIF, ""), leaves))
        return cls(formulas)

    def rules(self) -> dict[Hashable, z3.BoolRef]:
        """Return, by its text, when a rule is needed: it matches, and the rules behind it would not do the same."""
        found: dict[Hashable, list[z3.BoolRef]] = {}
        for visit in list(self.formulas.visits.values()):
            for matched in visit.matched:
                needed = both(self._comes(visit), matched.condition)
                verdict = _end(matched.rule)
                if verdict is not None:
                    needed = both(needed, opposite(self._the_same(visit, matched, verdict)))
                found.setdefault(str(matched.rule), []).append(needed)
        return {rule: either(needed) for rule, needed in found.items()}

    def elements(self) -> dict[Hashable, z3.BoolRef]:
        """Return, by table, collection and place, when an element of a named collection is found."""
        found: dict[Hashable, list[z3.BoolRef]] = {}
        for visit in self.formulas.visits.values():
            for look in visit.looks:
                name, table = look.statement.collection.name, (look.rule.chain.family, look.rule.chain.table)
                if name is not None:
                    for number, key in enumerate(self.formulas.keys(look, visit.at), 1):
                        found.setdefault((*table, name, number), []).append(both(self._comes(visit), key))
        return {element: either(keys) for element, keys in found.items()}

    def _comes(self, visit: Visit) -> z3.BoolRef:
        """Tell whether a packet comes to a chain, with what is written on it then."""
        found = self._entered.get(id(visit))
        if found is None:
            found = either(
                condition if caller is None else both(self._comes(caller), condition)
                for caller, condition in visit.came
            )
            self._entered[id(visit)] = found
        return found

    def _the_same(self, visit: Visit, matched: Matched, verdict: VerdictKind) -> z3.BoolRef:
        rest = self.formulas.rest(visit, matched.rule, matched.before)
        base = visit.chain.base
        if verdict is VerdictKind.DROP:
            return opposite(rest.accepted) if base and not base.accepts else rest.dropped
        ends = opposite(rest.dropped) if base and base.accepts else rest.accepted
        return both(ends, opposite(matched.after.differs(rest.written)))


def _end(rule: Rule) -> VerdictKind | None:
    """Return how a rule ends the judgement, if it names no counter for why it drops."""
    kinds = {each.kind for each in rule.statements if isinstance(each, Verdict)} & _FINAL
    named = any(isinstance(each, Note) and each.counter for each in rule.statements)
    return None if not kinds or (kinds == {VerdictKind.DROP} and named) else kinds.pop()


def needed(goals: Mapping[Hashable, z3.BoolRef]) -> set[Hashable]:
    """Return the goals for which there is a packet: each that is found may do for several.

    Raises:
        UndecidedError: z3 does not say.

    """
    solver = z3.SolverFor("QF_BV")
    waiting = {}
    for number, (name, goal) in enumerate(goals.items()):
        if not z3.is_false(goal):
            waiting[name] = z3.Bool(f"goal {number}")
            solver.add(waiting[name] == goal)
    found: set[Hashable] = set()
    while waiting:
        name, goal = next(iter(waiting.items()))
        answer = solver.check(goal)
        if answer == z3.unsat:
            del waiting[name]
        elif answer == z3.sat:
            model = solver.model()
            served = {each for each, bit in waiting.items() if z3.is_true(model[bit])}
            found |= served
            waiting = {each: bit for each, bit in waiting.items() if each not in served}
        else:
            raise UndecidedError(solver.reason_unknown())
    return found


def dead(host: str, ruleset: Ruleset, spaces: Sequence[Space]) -> set[str]:
    """Return what no packet of any family needs, in the words of the theorem without its reasons."""
    rules, elements = _alive(host, ruleset, spaces)
    unneeded = [each for each in ruleset.rules() if not is_shortcut(each) and str(each) not in rules]
    alone: set[Hashable] = set()
    for family, table in dict.fromkeys((each.chain.family, each.chain.table) for each in unneeded):
        chains = {id_: each for id_, each in ruleset.chains.items() if (id_.family, id_.table) == (family, table)}
        alone |= _alive(host, Ruleset(chains, ruleset.collections), spaces, marked=True)[0]
    return {
        *(f"no packet needs a rule: {each}" for each in unneeded if str(each) not in alone),
        *(
            f"a shortcut leads elsewhere than the rules after it: {each}"
            for each in ruleset.rules()
            if is_shortcut(each) and str(each) in rules
        ),
        *(
            f"no packet needs element {number} of {' '.join(collection)}"
            for collection, held in ruleset.collections.items()
            for number, _ in enumerate(held.elements, 1)
            if (*collection, number) not in elements
        ),
    }


def _alive(
    host: str, ruleset: Ruleset, spaces: Iterable[Space], *, marked: bool = False
) -> tuple[set[Hashable], set[Hashable]]:
    rules: set[Hashable] = set()
    elements: set[Hashable] = set()
    for space in spaces:
        needs = Needs.of(ruleset, Symbols(space.family, space.names), Unknowns(host), marked=marked)
        goals = {each: goal for each, goal in needs.rules().items() if each not in rules}
        if not marked:
            goals |= {each: goal for each, goal in needs.elements().items() if each not in elements}
        found = needed(goals)
        rules |= {each for each in found if isinstance(each, str)}
        elements |= {each for each in found if not isinstance(each, str)}
    return rules, elements


def shared(flows: Mapping[str, z3.BoolRef]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of flows that have a packet in common."""
    for (one, some), (other, others) in combinations(flows.items(), 2):
        if solved(both(some, others)) is not None:
            yield one, other
