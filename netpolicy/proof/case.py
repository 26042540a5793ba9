"""What theorems are about: all firewalls of a network in one family, as their kernels are and as they should be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from netpolicy.intent.routing import Routing
from netpolicy.proof.evaluate import Fate, Judgement, Step, evaluate
from netpolicy.proof.expected import Demanded, Demands, Permitted, crossings
from netpolicy.proof.fields import Family
from netpolicy.proof.judged import Judged, judge, space_for
from netpolicy.proof.model import Divert, Hook, Rule, Ruleset, Unknown, Verdict, VerdictKind
from netpolicy.proof.packetset import Packets, Space
from netpolicy.proof.readable import described
from netpolicy.proof.written import Chance, Listens
from netpolicy.topology.model import Topology

FORWARDED = (Hook.PREROUTING, Hook.FORWARD, Hook.POSTROUTING)
DELIVERED = (Hook.PREROUTING, Hook.INPUT)
SENT = (Hook.OUTPUT, Hook.POSTROUTING)
"""The hooks that packets come to, by what becomes of them."""


@dataclass(frozen=True, slots=True)
class Case:
    """All firewalls, judged in one space."""

    topology: Topology
    routing: Routing
    permitted: Mapping[str, list[Permitted]]
    space: Space
    judged: Mapping[str, Judged]
    demanded: Mapping[str, Demanded]


@dataclass(frozen=True, slots=True)
class Finding:
    """Where a theorem does not hold."""

    theorem: str
    firewall: str | None
    what: str
    packet: str | None = None
    """In words."""
    rule: str | None = None
    """That decided about it."""
    element: str | None = None
    """Of a set or map, by which the rule found it."""
    flow: str | None = None
    """That it is about."""
    trace: tuple[str, ...] = ()
    """Every rule that the packet met."""

    def __str__(self) -> str:
        lines = [f"{self.firewall or 'the network'}: {self.what}"]
        for name in ("packet", "rule", "element", "flow"):
            value = getattr(self, name)
            if value is not None:
                lines.append(f"    {name:8}{value}")
        return "\n".join(lines)


def prepare(topology: Topology, rulesets: Mapping[str, Ruleset], family: Family) -> Case:
    """Judge every firewall, and work out what is demanded of it.

    Args:
        topology: Says what is demanded.
        rulesets: By firewall, as read back from a kernel.
        family: Of the packets.

    Raises:
        InputError: The topology's routing is ambiguous.

    """
    routing = Routing(topology)
    permitted = crossings(topology, routing)
    names = {each.name for firewall in topology.firewalls.values() for each in firewall.interfaces}
    space = space_for(family, rulesets.values(), names)
    return Case(
        topology,
        routing,
        permitted,
        space,
        {firewall: judge(firewall, ruleset, space) for firewall, ruleset in rulesets.items()},
        {
            firewall: Demands(topology, routing, topology.firewalls[firewall], space, permitted[firewall]).demanded()
            for firewall in rulesets
        },
    )


def followed(judged: Judged, hooks: tuple[Hook, ...], picked: Packets) -> Judgement:
    """Return how the plain evaluator judges a packet, with the unknowns as they were picked."""

    def oracle(rule: Rule, statement: Unknown | Divert) -> bool:
        if isinstance(statement, Divert):
            return picked.unknown.get(Listens(judged.host, statement.port), True)
        place = next(number for number, each in enumerate(rule.statements) if each is statement)
        return picked.unknown.get(Chance(judged.host, (rule.chain, rule.number), place), False)

    return evaluate(judged.ruleset, hooks, picked.packet, oracle)


def found(  # noqa: PLR0917 - they are what a finding is made of
    theorem: str, judged: Judged, hooks: tuple[Hook, ...], picked: Packets, what: str, flow: str | None = None
) -> Finding:
    """Return a finding about one packet, with the rule that decided and all it met before."""
    judgement = followed(judged, hooks, picked)
    steps = judgement.steps
    if judgement.fate is Fate.ACCEPT:
        before = len(followed(judged, hooks[:-1], picked).steps)
        steps = _first_verdict(steps[before:]) or steps
    elements = [(name, element) for step in steps for name, element in step.elements]
    told = f"{elements[-1][0]}: {elements[-1][1].comment or 'without a comment'}" if elements else None
    comments = [element.comment for _, element in elements if element.comment]
    return Finding(
        theorem,
        judged.host,
        what,
        described(picked.packet),
        str(steps[-1]) if steps else None,
        told,
        flow or (comments[-1] if comments else None),
        tuple(str(step) for step in judgement.steps),
    )


def _first_verdict(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Return the steps of the first of several base chains: the others of a hook only agreed."""
    for place, step in enumerate(steps):
        final = step.rule is None or any(
            isinstance(each, Verdict) and each.kind is VerdictKind.ACCEPT for each in step.rule.statements
        )
        if final:
            return steps[: place + 1]
    return ()
