"""What one host does with every packet, and what a diagram says, both as formulas of z3."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

import z3
from oxidd.bdd import BDDFunction

from netpolicy.proof import fields
from netpolicy.proof.judged import Judged
from netpolicy.proof.model import Divert, Hook, Rule, Ruleset, Unknown
from netpolicy.proof.packetset import Space
from netpolicy.proof.written import Chance, Listens
from tests.proof.z3_model import Formulas
from tests.proof.z3_packet import NO, YES, Symbols, both, opposite


@dataclass(slots=True, repr=False)
class Unknowns:
    """Truth values for what packets do not decide, by the names that the diagrams have for it."""

    host: str
    known: dict[Hashable, z3.BoolRef] = field(default_factory=dict)

    def __call__(self, rule: Rule, place: int, statement: Unknown | Divert) -> z3.BoolRef:
        """Return the one of a statement."""
        if isinstance(statement, Divert):
            return self.of(Listens(self.host, statement.port))
        return self.of(Chance(self.host, (rule.chain, rule.number), place))

    def of(self, key: Hashable) -> z3.BoolRef:
        """Return the one with a name."""
        return self.known.setdefault(key, z3.Bool(f"unknown {key}"))


@dataclass(frozen=True, slots=True, repr=False)
class Sets:
    """What a host does, as formulas over the packet and the unknown."""

    forwarded: z3.BoolRef
    delivered: z3.BoolRef
    sent: z3.BoolRef
    diverted: Mapping[int, z3.BoolRef]

    def named(self) -> dict[str, z3.BoolRef]:
        """Return all of them by name."""
        return {
            "forwarded": self.forwarded,
            "delivered": self.delivered,
            "sent": self.sent,
            **{f"diverted {port}": part for port, part in self.diverted.items()},
        }


def arriving(packet: Symbols) -> z3.BoolRef:
    """Tell whether a packet can come by a wire."""
    return both(packet.valid(), packet.unmarked(), opposite(packet.at(fields.IIF, "", "lo")))


def said(packet: Symbols) -> z3.BoolRef:
    """Tell whether the host itself can say it."""
    own = both(packet.at(fields.IIF, ""), opposite(packet.at(fields.OIF, "")))
    return both(packet.valid(), packet.unmarked(), own)


def sets_of(ruleset: Ruleset, packet: Symbols, unknowns: Unknowns) -> Sets:
    """Return what a host with a ruleset does."""
    formulas = Formulas(ruleset, packet, unknowns)
    leaving = both(arriving(packet), opposite(packet.at(fields.OIF, "")))
    forwarded, _ = formulas.through((Hook.PREROUTING, Hook.FORWARD, Hook.POSTROUTING))
    delivered, written = formulas.through((Hook.PREROUTING, Hook.INPUT))
    sent, _ = formulas.through((Hook.OUTPUT, Hook.POSTROUTING))
    ports = {
        statement.port
        for rule in ruleset.rules()
        for statement in rule.statements
        if isinstance(statement, Divert) and statement.port
    }
    delivered = both(arriving(packet), delivered)
    return Sets(
        forwarded=both(leaving, forwarded),
        delivered=delivered,
        sent=both(said(packet), sent),
        diverted={port: both(delivered, written.port == port) for port in sorted(ports)},
    )


def judged_sets(judged: Judged) -> dict[str, BDDFunction]:
    """Return the diagrams' sets by the same names."""
    return {
        "forwarded": judged.forwarded,
        "delivered": judged.delivered,
        "sent": judged.sent,
        **{f"diverted {port}": part for port, part in judged.diverted.items()},
    }


@dataclass(slots=True, repr=False)
class Diagrams:
    """Diagrams of a space as formulas of z3, node by node."""

    space: Space
    packet: Symbols
    unknowns: Unknowns
    _bits: dict[int, z3.BoolRef] = field(default_factory=dict)
    _known: dict[BDDFunction, z3.BoolRef] = field(default_factory=dict)
    _context: z3.Context = field(default_factory=z3.main_ctx)

    def __post_init__(self) -> None:
        for each, bits in self.space._bits.items():
            for place, bit in enumerate(reversed(bits)):
                number = bit.node_var()
                assert number is not None
                self._bits[number] = z3.Extract(place, place, self.packet[each]) == 1

    def formula(self, diagram: BDDFunction) -> z3.BoolRef:
        """Return the formula that holds for the same packets."""
        for key, bit in self.space._unknown.items():
            number = bit.node_var()
            assert number is not None
            self._bits[number] = self.unknowns.of(key)
        return self._node(diagram)

    def _node(self, diagram: BDDFunction) -> z3.BoolRef:
        number = diagram.node_var()
        if number is None:
            return YES if diagram.satisfiable() else NO
        found = self._known.get(diagram)
        if found is None:
            children = diagram.cofactors()
            assert children is not None
            yes, no = (self._node(child) for child in children)
            # As z3.If, which spends most of its time on making sure that these are what they are.
            node = z3.Z3_mk_ite(self._context.ref(), self._bits[number].ast, yes.ast, no.ast)
            found = self._known[diagram] = z3.BoolRef(node, self._context)
        return found
