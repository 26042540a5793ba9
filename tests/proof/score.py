"""Whether a mutant is one, by the diagrams; and whether the theorems find it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from netpolicy.intent.routing import Routing
from netpolicy.proof.case import Case
from netpolicy.proof.expected import Demands, Permitted, crossings
from netpolicy.proof.fields import Family, State
from netpolicy.proof.judged import Judged, judge, space_for
from netpolicy.proof.model import Ruleset
from netpolicy.proof.packetset import PacketSet, Space
from netpolicy.proof.read import RULESETS, LoadError, read_rulesets
from netpolicy.proof.terms import RefusedError
from netpolicy.proof.theorems.engines import engines, read_guards
from netpolicy.proof.theorems.exact import chance_text, exact, limits
from netpolicy.proof.theorems.order import order
from netpolicy.proof.written import Chance
from netpolicy.topology.model import Topology
from tests.proof.mutants import OTHER_INTERFACES, Mutant
from tests.proof.sendable import Sendable

REFUSED, EQUIVALENT, FOUND, SURVIVED = "refused by nft", "equivalent", "found", "survived"


@dataclass(slots=True)
class Scale:
    """Weighs the mutants of one firewall's ruleset against it."""

    topology: Topology
    build: Path
    firewall: str
    _original: Ruleset = field(init=False)
    _permitted: dict[str, list[Permitted]] = field(init=False)
    _routing: Routing = field(init=False)
    _before: list[Judged] = field(init=False, default_factory=list)
    """The unchanged ruleset in each family."""

    def __post_init__(self) -> None:
        self._original = self.read((self.build / self.firewall / RULESETS[1]).read_text(encoding="utf-8"))
        self._routing = Routing(self.topology)
        self._permitted = crossings(self.topology, self._routing)
        names = [*OTHER_INTERFACES, *(each.name for each in self.topology.firewalls[self.firewall].interfaces)]
        for family in Family:
            space = space_for(family, [self._original], names)
            self._before.append(judge(self.firewall, self._original, space))

    def read(self, text: str) -> Ruleset:
        """Return what a kernel holds of a main table beside this firewall's guard.

        Raises:
            LoadError: nft refuses it.

        """
        with tempfile.NamedTemporaryFile("w", suffix=".nft", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            return read_rulesets([[self.build / self.firewall / RULESETS[0], Path(file.name)]])[0]

    def weigh(self, mutant: Mutant) -> str:
        """Return what becomes of a mutant."""
        try:
            changed = self.read(mutant.text)
        except LoadError:
            return REFUSED
        except RefusedError:  # nothing is proven about it
            return FOUND
        different = False
        for before in self._before:
            after = judge(self.firewall, changed, before.space)
            if _meaning(before) != _meaning(after):
                different = True
                if any(True for _ in self._findings(after, before.space)):
                    return FOUND
        return SURVIVED if different else EQUIVALENT

    def shows(self, mutant: Mutant, when: datetime) -> bool | None:
        """Tell whether some packet that a sender on a wire can bring about at an instant is judged otherwise.

        None if the proof refuses the mutant by name: then nothing is known of its packets.
        """
        try:
            changed = self.read(mutant.text)
        except RefusedError:
            return None
        for before in self._before:
            after = judge(self.firewall, changed, before.space)
            sendable = Sendable(self._demands(before.space), when)
            if sendable.seen(before) != sendable.seen(after):
                return True
        return False

    def _findings(self, judged: Judged, space: Space) -> Iterator[object]:
        demanded = self._demands(space).demanded()
        case = Case(
            self.topology, self._routing, self._permitted, space, {self.firewall: judged}, {self.firewall: demanded}
        )
        yield from exact(case, self.firewall)
        yield from limits(case, self.firewall)
        yield from order(case.judged[self.firewall])
        yield from engines(case, self.firewall, read_guards(self.build / self.firewall))

    def _demands(self, space: Space) -> Demands:
        known = self.topology.firewalls[self.firewall]
        return Demands(self.topology, self._routing, known, space, self._permitted[self.firewall])


def _meaning(judged: Judged) -> tuple[object, ...]:
    """Return all that makes a difference to packets: bounds of what gets on, and by what it is limited."""
    space = judged.space
    whole = [
        judged.forwarded,
        judged.delivered,
        judged.sent,
        *(judged.diverted[port] for port in sorted(judged.diverted)),
    ]
    new = space.in_state(State.NEW)
    return (
        tuple(sorted(judged.diverted)),
        *(bound for packets in whole for bound in (space.possibly(packets), space.surely(packets))),
        *(_limits(judged, packets & new) for packets in whole),
    )


def _limits(judged: Judged, packets: PacketSet) -> tuple[str, ...]:
    held = judged.space.depends_on(packets)
    return tuple(sorted(chance_text(judged, each) for each in held if isinstance(each, Chance)))
