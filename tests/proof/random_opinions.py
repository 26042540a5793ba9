"""Random rulesets by three opinions: diagrams, z3, and the evaluator on packets at the edges of what the rules ask."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from dataclasses import fields as dataclass_fields
from pathlib import Path
from random import Random

from oxidd.util import DDMemoryError

from conformance.modelled.expressions import INTERFACES
from conformance.modelled.plan import Plan
from conformance.modelled.points import points
from conformance.modelled.rulesets import ruleset
from netpolicy.proof import fields
from netpolicy.proof.evaluate import Packet
from netpolicy.proof.fields import STATES, Family, State
from netpolicy.proof.judged import Judged, judge, space_for
from netpolicy.proof.model import Divert, Ruleset, Unknown
from netpolicy.proof.packetset import PacketSet
from netpolicy.proof.reach import consistent
from netpolicy.proof.read import LoadError, read_rulesets
from netpolicy.proof.terms import RefusedError
from netpolicy.proof.written import Chance, Listens
from tests.proof.second import Opinions, gets_on, known, set_of
from tests.proof.second_theorems import about_life, about_order
from tests.proof.z3_order import crowded, unordered

_BY_NUMBER = re.compile(r"\b([io]if) ")
HOST = "host"
WAYS = ("forwarded", "delivered", "diverted", "sent")


@dataclass(slots=True)
class Trial:
    """What came of random rulesets."""

    rulesets: int = 0
    refused: int = 0
    """By the reader, or by nft itself."""
    too_big: list[int] = field(default_factory=list)
    """Seeds of those for which the diagrams have no room."""
    sets: int = 0
    """Compared between the diagrams and z3."""
    packets: int = 0
    """Held by the evaluator against the diagrams, on each way that they can come."""
    passed: int = 0
    parts: int = 0
    """Rules and elements of which both say whether a packet needs them."""
    dead: int = 0
    """Of those, and by both, the ones that no packet needs."""
    orders: int = 0
    """Pairs of base chains of one place, once all of a hook have one priority."""
    unequal: int = 0
    """Of those, and by both, the ones whose order matters."""
    disagreements: list[str] = field(default_factory=list)

    def with_more(self, more: Trial) -> Trial:
        """Return both together."""
        return Trial(
            **{each.name: getattr(self, each.name) + getattr(more, each.name) for each in dataclass_fields(self)}
        )


def read_random(seeds: Iterable[int]) -> Iterator[tuple[int, Ruleset | None]]:
    """Yield random rulesets as a kernel holds them; None for those that are refused."""
    with tempfile.TemporaryDirectory() as directory:
        several = []
        for seed in seeds:
            path = Path(directory) / f"{seed}.nft"
            # By number, they would have to be there.
            path.write_text(_BY_NUMBER.sub(r"\1name ", ruleset(seed)), encoding="utf-8")
            several.append((seed, path))
        yield from _read(several)


def _read(several: Sequence[tuple[int, Path]]) -> Iterator[tuple[int, Ruleset | None]]:
    try:
        found = read_rulesets([[path] for _, path in several])
    except (LoadError, RefusedError):
        if len(several) == 1:
            yield several[0][0], None
            return
        half = len(several) // 2
        yield from _read(several[:half])
        yield from _read(several[half:])
        return
    yield from ((seed, each) for (seed, _), each in zip(several, found, strict=True))


def try_rulesets(seeds: Iterable[int], packets: int, *, most: int | None = None) -> Trial:
    """Ask everybody about random rulesets, and about so many packets of each family on each way.

    Of at most so many, what no packet needs and which base chains commute.
    """
    found = Trial()
    for seed, read in read_random(seeds):
        if read is None:
            found.refused += 1
            continue
        random = Random(seed)  # noqa: S311 - the same every time
        try:
            several = [judge(HOST, read, space_for(family, [read], INTERFACES)) for family in Family]
            if most is None or found.rulesets < most:
                _ask(found, seed, several)
        except DDMemoryError:
            found.too_big.append(seed)
            continue
        for judged in several:
            opinions = Opinions(judged)
            found.sets += len(opinions.sets.named())
            found.disagreements += [f"seed {seed}: {each}" for each in opinions.differences()]
            _hold(found, seed, judged, packets, random)
        found.rulesets += 1
    return found


def _ask(found: Trial, seed: int, several: Sequence[Judged]) -> None:
    """Ask both what no packet needs of a ruleset, and which of its base chains commute."""
    ruleset = several[0].ruleset
    lives = about_life(several)
    found.parts += sum(1 for _ in ruleset.rules()) + sum(len(each.elements) for each in ruleset.collections.values())
    found.dead += len(lives.by_z3)
    found.disagreements += [f"seed {seed}: {each}" for each in lives.disagreements()]
    several_of_one_place = crowded(ruleset)
    for judged in several:
        orders = about_order(replace(judged, ruleset=several_of_one_place))
        found.orders += sum(1 for _ in unordered(several_of_one_place, judged.space.family))
        found.unequal += len(orders.by_z3)
        found.disagreements += [f"seed {seed}: {each}" for each in orders.disagreements()]


def _hold(found: Trial, seed: int, judged: Judged, packets: int, random: Random) -> None:
    space = judged.space
    plan = Plan(INTERFACES)
    for packet in points(judged.ruleset, space.family, plan.interfaces, packets, random):
        unknown = {key: random.random() < 0.5 for key in _unknowns(judged)}
        here = known(space, unknown)
        for way in WAYS:
            changed = _fitting(packet.changed(_ends(way, random)))
            one = space.of(changed)
            if not (one & _domain(judged, way)).satisfiable():
                continue
            found.packets += 1
            by_diagrams = (one & here & set_of(judged, way)).satisfiable()
            found.passed += by_diagrams
            if gets_on(judged, way, changed, unknown) is not by_diagrams:
                found.disagreements.append(f"seed {seed}: {way}: the evaluator says {not by_diagrams} of {changed}")


def _fitting(packet: Packet) -> Packet:
    """Return a packet that there is, and that nobody has marked yet."""
    changes: dict[fields.Field, int | str] = dict.fromkeys((fields.MARK, fields.ZONE, fields.CT_MARK), 0)
    if packet[fields.STATE] not in {STATES.index(State.ESTABLISHED), STATES.index(State.RELATED)}:
        changes[fields.DIRECTION] = fields.ORIGINAL
    if packet.family is Family.IPV6:
        if not packet[fields.EXTENSIONS["frag"]]:
            changes |= {fields.MORE_FRAGMENTS: 0, fields.LATER_FRAGMENT: 0}
        if not packet.changed(changes)[fields.MORE_FRAGMENTS]:
            changes[fields.ODD_FRAGMENT] = 0
    return consistent(packet.changed(changes))


def _ends(way: str, random: Random) -> dict[fields.Field, int | str]:
    one, other = (random.choice([*INTERFACES, "elsewhere"]) for _ in range(2))
    if way == "sent":
        return {fields.IIF: "", fields.OIF: other}
    return {fields.IIF: one, fields.OIF: other if way == "forwarded" else ""}


def _domain(judged: Judged, way: str) -> PacketSet:
    space = judged.space
    return space.valid if way == "sent" else judged.arriving


def _unknowns(judged: Judged) -> Iterator[Hashable]:
    for rule in judged.ruleset.rules():
        for place, statement in enumerate(rule.statements):
            if isinstance(statement, Divert):
                yield Listens(judged.host, statement.port)
            elif isinstance(statement, Unknown):
                yield Chance(judged.host, (rule.chain, rule.number), place)
