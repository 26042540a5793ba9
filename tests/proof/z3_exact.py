"""The theorem that a firewall accepts exactly what its flows say, answered by z3 alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import z3

from netpolicy.proof import fields
from netpolicy.proof.evaluate import Packet
from netpolicy.proof.written import Listens
from tests.proof.z3_demands import Demand
from tests.proof.z3_judged import Sets, Unknowns, arriving, said
from tests.proof.z3_packet import Symbols, both, either, opposite

MORE, LESS, REFUSED = "more", "less", "refused"
_ROUNDS = 200


class UndecidedError(RuntimeError):
    """z3 gave no answer."""


@dataclass(frozen=True, slots=True, repr=False)
class Witness:
    """A packet that contradicts the theorem, and what the unknown is then."""

    packet: Packet
    unknown: Mapping[object, bool]


@dataclass(frozen=True, slots=True, repr=False)
class Exact:
    """One firewall."""

    packet: Symbols
    unknowns: Unknowns
    sets: Sets
    demand: Demand

    def answers(self) -> Iterator[tuple[str, str, Witness | None]]:
        """Yield, for each way on and each kind of contradiction, one packet or None."""
        limited, listening = self.demand.limited, self._listening()
        for way, is_so, wanted, possible in self.ways():
            should = both(wanted, possible)
            yield way, MORE, self._witness(both(is_so, opposite(should)))
            yield way, LESS, self._never(should, is_so)
            yield way, REFUSED, self._witness(both(should, opposite(limited), listening, opposite(is_so)))

    def ways(self) -> Iterator[tuple[str, z3.BoolRef, z3.BoolRef, z3.BoolRef]]:
        """Yield each way on: as it is, as it should be, and what can come this way at all."""
        packet, sets, demand = self.packet, self.sets, self.demand
        whole = opposite(packet.kept())
        comes = both(arriving(packet), whole)
        leaves = opposite(packet.at(fields.OIF, ""))
        yield "forwarded", sets.forwarded, demand.forwarded, both(comes, leaves)
        yield "diverted", either(sets.diverted.values()), demand.diverted, comes
        yield "delivered", sets.delivered, demand.delivered, comes
        yield "sent", sets.sent, demand.sent, both(said(packet), whole)

    def _listening(self) -> z3.BoolRef:
        return both(*(self.unknowns.of(Listens(self.unknowns.host, port)) for port in self.sets.diverted))

    def witness(self, model: z3.ModelRef, *names: tuple[z3.ExprRef, z3.ExprRef]) -> Witness:
        """Return the packet of a model, which may have other names for variables."""
        renamed = {old.get_id(): new for old, new in names}
        unknown = {
            key: z3.is_true(model.eval(renamed.get(bit.get_id(), bit), model_completion=True))
            for key, bit in self.unknowns.known.items()
        }
        return Witness(self.packet.packet(model, *names), unknown)

    def _witness(self, formula: z3.BoolRef) -> Witness | None:
        model = solved(formula)
        return None if model is None else self.witness(model)

    def _never(self, should: z3.BoolRef, is_so: z3.BoolRef) -> Witness | None:
        """Return a packet of the one that is not of the other, whatever is unknown."""
        found = never(should, is_so, self.unknowns.known.values())
        return None if found is None else Witness(self.packet.packet(found), {})


def never(should: z3.BoolRef, is_so: z3.BoolRef, free: Iterable[z3.ExprRef]) -> z3.ModelRef | None:
    """Return a model of `should` that is none of `is_so`, whatever the `free` variables are.

    Models are guessed that nothing tried so far helps; what helps one is tried from then on.

    Raises:
        UndecidedError: z3 does not say.

    """
    variables = list(free)
    bound = {each.get_id() for each in variables}
    guesses = z3.SolverFor("QF_BV")
    guesses.add(should)
    for _ in range(_ROUNDS):
        guess = _model(guesses)
        if guess is None:
            return None
        chosen = [name() == guess[name] for name in guess.decls() if name().get_id() not in bound]
        helps = solved(both(*chosen, is_so))
        if helps is None:
            return guess
        tried = [(each, helps.eval(each, model_completion=True)) for each in variables]
        guesses.add(opposite(z3.substitute(is_so, *tried) if tried else is_so))
    raise UndecidedError("too many guesses")


def solved(formula: z3.BoolRef) -> z3.ModelRef | None:
    """Return a model of a formula; None if there is none.

    Raises:
        UndecidedError: z3 does not say.

    """
    solver = z3.SolverFor("QF_BV")
    solver.add(formula)
    return _model(solver)


def _model(solver: z3.Solver) -> z3.ModelRef | None:
    answer = solver.check()
    if answer == z3.sat:
        return solver.model()
    if answer == z3.unsat:
        return None
    raise UndecidedError(solver.reason_unknown())
