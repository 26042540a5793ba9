"""Two opinions on one firewall side by side: where diagrams and z3 differ."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import z3

from netpolicy.proof import fields
from netpolicy.proof.case import DELIVERED, FORWARDED, SENT, Case, followed
from netpolicy.proof.evaluate import Fate, Packet
from netpolicy.proof.judged import Judged, unmarked
from netpolicy.proof.model import Ruleset
from netpolicy.proof.packetset import Packets, PacketSet, Space
from netpolicy.proof.read import read_rulesets
from netpolicy.proof.theorems.exact import exact
from tests.proof.z3_demands import Wanted
from tests.proof.z3_exact import LESS, MORE, Exact, Witness, solved
from tests.proof.z3_judged import Diagrams, Sets, Unknowns, judged_sets, sets_of
from tests.proof.z3_packet import Symbols, both
from tests.proof.z3_reach import Opening

FILES = ("guard.nft", "nftables.nft")
HOOKS = {"forwarded": FORWARDED, "diverted": DELIVERED, "delivered": DELIVERED, "sent": SENT}
"""The way of a packet into each set."""
_VERBS = {"passes on": "forwarded", "hands to its relay": "diverted", "takes": "delivered", "says": "sent"}
"""How findings name them."""


def read_build(build: Path, firewalls: Sequence[str]) -> dict[str, Ruleset]:
    """Return what kernels hold that have loaded a build."""
    found = read_rulesets([[build / firewall / name for name in FILES] for firewall in firewalls])
    return dict(zip(firewalls, found, strict=True))


@dataclass(slots=True, repr=False)
class Opinions:
    """What both say of one ruleset."""

    judged: Judged
    packet: Symbols = field(init=False)
    unknowns: Unknowns = field(init=False)
    diagrams: Diagrams = field(init=False)
    sets: Sets = field(init=False)
    """z3's."""

    def __post_init__(self) -> None:
        space = self.judged.space
        self.packet, self.unknowns = Symbols(space.family, space.names), Unknowns(self.judged.host)
        self.diagrams = Diagrams(space, self.packet, self.unknowns)
        self.sets = sets_of(self.judged.ruleset, self.packet, self.unknowns)

    def differences(self) -> Iterator[str]:
        """Yield the sets that are not equal, each with a packet."""
        diagrams, formulas = judged_sets(self.judged), self.sets.named()
        for name in sorted({*formulas, *diagrams}):
            formula = formulas.get(name, z3.BoolVal(False))
            diagram = diagrams.get(name, self.judged.space.false)
            yield from self.compared(name, formula, diagram)

    def compared(self, name: str, formula: z3.BoolRef, diagram: PacketSet) -> Iterator[str]:
        """Yield a packet, as text, for which a formula and a diagram differ."""
        other = self.diagrams.formula(diagram)
        model = solved(z3.Xor(formula, other))
        if model is not None:
            says = z3.is_true(model.eval(formula, model_completion=True))
            yield f"{self.judged.host}: {name}: z3 says {says} of {self.packet.packet(model)}"


@dataclass(slots=True, repr=False)
class Firewall:
    """What both say of one firewall of a network."""

    case: Case
    name: str
    opinions: Opinions = field(init=False)
    theorem: Exact = field(init=False)
    flows: dict[str, z3.BoolRef] = field(init=False)
    """What is demanded for each, to be passed on or taken."""

    def __post_init__(self) -> None:
        case = self.case
        self.opinions = Opinions(case.judged[self.name])
        packet, unknowns = self.opinions.packet, self.opinions.unknowns
        version = case.space.family.version
        mine = tuple(each for each in case.permitted[self.name] if each.source_address.version == version)
        wanted = Wanted(case.topology, case.routing, case.topology.firewalls[self.name], packet, mine)
        self.theorem = Exact(packet, unknowns, self.opinions.sets, wanted.all())
        self.flows = wanted.by_flow()

    def demands(self) -> Iterator[str]:
        """Yield the demands of the topology that are not equal, each with a packet."""
        for name, formula in self.theorem.demand.named().items():
            valid = self.case.space.valid
            diagram = valid & demanded_sets(self.case, self.name)[name]
            yield from self.opinions.compared(name, both(self.opinions.packet.valid(), formula), diagram)

    def answers(self) -> tuple[set[tuple[str, bool]], set[tuple[str, bool]], list[tuple[str, str, Witness]]]:
        """Return where the theorem fails by z3 and by the diagrams, as way and whether it is too much; z3's packets."""
        witnesses = [(way, kind, witness) for way, kind, witness in self.theorem.answers() if witness is not None]
        findings = exact(self.case, self.name)
        ours = set()
        for finding in findings:
            verb = next(verb for verb in _VERBS if finding.what.startswith(verb))
            ours.add((_VERBS[verb], finding.what.endswith("what no flow permits")))
        return {(way, kind == MORE) for way, kind, _ in witnesses}, ours, witnesses

    def confirmed(self, way: str, kind: str, witness: Witness) -> Iterator[str]:
        """Yield who does not confirm z3's packet: the diagrams, or the evaluator."""
        judged, space = self.opinions.judged, self.case.space
        wanted = demanded_sets(self.case, self.name)[way]
        one, is_so = space.of(witness.packet) & known(space, witness.unknown), set_of(judged, way)
        if kind == LESS:
            is_so = space.possibly(is_so)
        if not (one & (is_so & ~wanted if kind == MORE else wanted & ~is_so)).satisfiable():
            yield f"diagrams: {way}, {kind}: {witness.packet}"
        if kind == LESS:
            always, never = (dict.fromkeys(self.opinions.unknowns.known, each) for each in (True, False))
            passed = any(gets_on(judged, way, witness.packet, unknown) for unknown in (always, never))
        else:
            passed = gets_on(judged, way, witness.packet, witness.unknown)
        if passed is not (kind == MORE):
            yield f"evaluator: {way}, {kind}: {witness.packet}"

    def picked(self) -> Iterator[str]:
        """Yield whoever does not confirm the diagrams' own packets: z3, or the evaluator."""
        space, judged = self.case.space, self.opinions.judged
        for way, is_so, wanted, possible in self.theorem.ways():
            demanded = demanded_sets(self.case, self.name)[way]
            inside = space.valid & self._possible(way)
            for more, difference in (
                (True, space.valid & set_of(judged, way) & ~(demanded & inside)),
                (False, demanded & inside & ~space.possibly(set_of(judged, way))),
            ):
                one = space.pick(difference)
                if one is None:
                    continue
                here = both(self.opinions.packet.same(one.packet), *self._unknown(one.unknown))
                should = both(wanted, possible)
                formula = both(here, is_so, z3.Not(should)) if more else both(here, should, z3.Not(is_so))
                if solved(formula) is None:
                    yield f"z3: {way}, more={more}: {one.packet}"
                if gets_on(judged, way, one.packet, one.unknown) is not more:
                    yield f"evaluator: {way}, more={more}: {one.packet}"

    def opening(self) -> Opening:
        """Return the question what may begin a connection across it."""
        version = self.case.space.family.version
        mine = tuple(each for each in self.case.permitted[self.name] if each.source_address.version == version)
        return Opening(self.theorem, self.case, self.name, mine)

    def depending(self) -> Iterator[tuple[str, set[Hashable], set[Hashable]]]:
        """Yield, by set, the unknowns that make a difference by z3, and by the diagrams."""
        for way, is_so, _, _ in self.theorem.ways():
            found = set()
            for key, bit in self.opinions.unknowns.known.items():
                yes, no = (z3.substitute(is_so, (bit, z3.BoolVal(value))) for value in (True, False))
                if not yes.eq(no) and solved(z3.Xor(yes, no)) is not None:
                    found.add(key)
            yield way, found, set(self.case.space.depends_on(set_of(self.opinions.judged, way)))

    def _unknown(self, unknown: Mapping[object, bool]) -> Iterator[z3.BoolRef]:
        for key, value in unknown.items():
            bit = self.opinions.unknowns.known.get(key)
            if bit is not None:
                yield bit == value

    def _possible(self, way: str) -> PacketSet:
        space, judged = self.case.space, self.opinions.judged
        found = (unmarked(space) if way == "sent" else judged.arriving) & ~space.held()
        if way == "sent":
            found &= space.interface(fields.IIF, ("",))
        return found & ~space.interface(fields.OIF, ("",)) if way in {"sent", "forwarded"} else found


def set_of(judged: Judged, way: str) -> PacketSet:
    """Return a set of what a ruleset does, by its name."""
    if way == "diverted":
        return judged.space.union(list(judged.diverted.values()))
    found: PacketSet = getattr(judged, way)
    return found


def demanded_sets(case: Case, firewall: str) -> dict[str, PacketSet]:
    """Return what is demanded of a firewall, by the names of the sets, and what is limited."""
    demanded = case.demanded[firewall]
    found = {way: case.space.union(list(getattr(demanded, way).values())) for way in HOOKS}
    return {**found, "limited": demanded.limited}


def known(space: Space, unknown: Mapping[object, bool]) -> PacketSet:
    """Return the packets for which the unknown is as given."""
    found = space.true
    for key, value in unknown.items():
        bit = space.unknown(key)
        found &= bit if value else ~bit
    return found


def gets_on(judged: Judged, way: str, packet: Packet, unknown: Mapping[object, bool]) -> bool:
    """Tell whether the evaluator passes a packet on."""
    judgement = followed(judged, HOOKS[way], Packets(packet, unknown))
    return judgement.fate is Fate.ACCEPT and (way != "diverted" or judgement.diverted is not None)
