"""What gets through a network although an invariant forbids it, by z3 alone: a search for ways, a formula for each.

It rests on nothing that firewalls should do, as :func:`~tests.proof.z3_reach.followed_connections` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import z3

from netpolicy.proof import fields
from netpolicy.proof.case import Case
from netpolicy.topology.ends import select_nodes
from netpolicy.topology.model import Invariant, Node, SegmentKind
from tests.proof.z3_exact import UndecidedError, Witness
from tests.proof.z3_packet import Symbols, both
from tests.proof.z3_reach import Begins, Opening


@dataclass(frozen=True, slots=True, repr=False)
class Step:
    """One firewall between two segments, as one of the steps of a way: all but the header is its own."""

    firewall: str
    ends: tuple[str, str]
    """Interfaces."""
    segment: str
    """Behind it."""
    opens: z3.BoolRef
    opening: Opening
    begins: Begins
    names: Sequence[tuple[z3.ExprRef, z3.ExprRef]]
    """What the formulas of the firewall call a variable, and what this step does."""

    def witnesses(self, model: z3.ModelRef) -> tuple[Witness, ...]:
        """Return the packet of a model that is passed on; or the one that is taken, and the one that is said then."""
        own, theorem = dict(self.names), self.opening.theorem
        if z3.is_true(model.eval(z3.substitute(self.begins.passed, *self.names), model_completion=True)):
            return (theorem.witness(model, *self.names),)
        others = self.begins.taken, self.begins.said
        return tuple(
            theorem.witness(model, *{**own, **{old: own[new] for old, new in each}}.items()) for each in others
        )


Way = Sequence[tuple[Step, tuple[Witness, ...]]]


@dataclass(frozen=True, slots=True, repr=False)
class Ways:
    """All ways through a network in which no segment comes twice: to come back opens nothing."""

    case: Case
    openings: Mapping[str, Opening]
    """Of each firewall, in one space."""
    _solver: z3.Solver = field(default_factory=lambda: z3.SolverFor("QF_BV"))
    _switches: dict[int, tuple[z3.BoolRef, z3.BoolRef]] = field(default_factory=dict)
    """By formula: what has the solver assume it, and the formula."""
    _begins: dict[str, Begins] = field(default_factory=dict)
    _steps: dict[tuple[str, int], list[Step]] = field(default_factory=dict)

    def broken(self) -> dict[str, Way]:
        """Return, in the words of the theorem, who gets where it never must, and on which way."""
        found: dict[str, Way] = {}
        for invariant in self.case.topology.invariants.values():
            sources: dict[str, list[Node]] = {}
            for node in select_nodes(self.case.topology, invariant.sources):
                sources.setdefault(node.interface.segment, []).append(node)
            for origin, nodes in sources.items():
                _Search(self, invariant, nodes, found).follow(origin, [])
        return found

    @property
    def packet(self) -> Symbols:
        """The symbols that all firewalls have in common."""
        return next(iter(self.openings.values())).theorem.packet

    def model(self, conditions: Sequence[z3.BoolRef]) -> z3.ModelRef | None:
        """Return a model of all conditions; the solver has most of them from before.

        Raises:
            UndecidedError: z3 does not say.

        """
        answer = self._solver.check([self._switch(each) for each in conditions])
        if answer == z3.unknown:
            raise UndecidedError(self._solver.reason_unknown())
        return self._solver.model() if answer == z3.sat else None

    def _switch(self, condition: z3.BoolRef) -> z3.BoolRef:
        number = condition.get_id()
        if number not in self._switches:
            switch = z3.Bool(f"assumed {number}")
            self._solver.add(z3.Implies(switch, condition))
            self._switches[number] = (switch, condition)
        return self._switches[number][0]

    def steps(self, segment: str, place: int) -> list[Step]:
        """Return the steps from a segment, as the ones at a place of a way."""
        if (segment, place) not in self._steps:
            self._steps[segment, place] = list(self._from(segment, place))
        return self._steps[segment, place]

    def _from(self, segment: str, place: int) -> Iterator[Step]:
        for firewall in self.case.topology.firewalls.values():
            for ingress in firewall.interfaces:
                for egress in firewall.interfaces:
                    if ingress.segment == segment and egress is not ingress:
                        yield self._step(firewall.id, (ingress.name, egress.name), egress.segment, place)

    def _step(self, firewall: str, ends: tuple[str, str], segment: str, place: int) -> Step:
        opening = self.openings[firewall]
        packet = opening.theorem.packet
        if firewall not in self._begins:
            self._begins[firewall] = opening.begins()
        begins = self._begins[firewall]
        own = [*begins.free(), packet[fields.IIF], packet[fields.OIF]]
        names = [(each, z3.Const(f"{place}: {each}", each.sort())) for each in own]
        comes, goes = packet.at(fields.IIF, ends[0]), packet.at(fields.OIF, ends[1])
        opens = z3.substitute(both(comes, goes, begins.across), *names)
        return Step(firewall, ends, segment, opens, opening, begins, names)


@dataclass(slots=True, repr=False)
class _Search:
    """For what breaks an invariant from the nodes of one segment."""

    ways: Ways
    invariant: Invariant
    sources: Sequence[Node]
    found: dict[str, Way]
    outside: bool = field(init=False)
    """Whether nobody answers for the addresses there: then any may be claimed."""
    destinations: dict[str, list[Node]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        topology, origin = self.ways.case.topology, self.sources[0].interface.segment
        self.outside = topology.segments[origin].kind is SegmentKind.EXTERNAL
        for node in select_nodes(topology, self.invariant.destinations):
            if node.interface.segment != origin:
                self.destinations.setdefault(node.interface.segment, []).append(node)

    def follow(self, here: str, trail: Sequence[Step]) -> None:
        """Look on from a segment to which a way has led."""
        seen = {self.sources[0].interface.segment, *(step.segment for step in trail)}
        everywhere = [node for some in self.destinations.values() for node in some]
        for step in self.ways.steps(here, len(trail)):
            way = [*trail, step]
            if step.segment not in seen and self._model(way, self.sources, everywhere) is not None:
                self._arrive(way)
                self.follow(step.segment, way)

    def _arrive(self, way: Sequence[Step]) -> None:
        for source in self.sources:
            for destination in self.destinations.get(way[-1].segment, ()):
                what = f"invariant '{self.invariant.id}': {source.id} gets to {destination.id}"
                if what not in self.found:
                    model = self._model(way, [source], [destination])
                    if model is not None:
                        self.found[what] = [(step, step.witnesses(model)) for step in way]

    def _model(self, way: Sequence[Step], sources: Sequence[Node], destinations: Sequence[Node]) -> z3.ModelRef | None:
        claimed = [] if self.outside else [self._has(fields.SADDR, sources)]
        return self.ways.model([*claimed, self._has(fields.DADDR, destinations), *(step.opens for step in way)])

    def _has(self, wanted: fields.Field, nodes: Sequence[Node]) -> z3.BoolRef:
        packet = self.ways.packet
        return packet.equals(
            wanted,
            *(
                int(each)
                for node in nodes
                for each in node.interface.addresses
                if each.version == packet.family.version
            ),
        )
