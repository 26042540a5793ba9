"""Random rulesets on the firewalls of the small network, with random guards: theorems that nothing holds for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from random import Random

from oxidd.util import DDMemoryError

from conformance.modelled.expressions import INTERFACES
from conformance.modelled.plan import LISTENED
from netpolicy.proof.case import prepare
from netpolicy.proof.fields import Family
from netpolicy.proof.model import Ruleset
from netpolicy.proof.theorems.engines import Guards
from netpolicy.topology.model import Assurance, Invariant, PortRange, Selector, Title, Topology
from tests.lab.small import PLACE, small_topology
from tests.proof.second import Firewall
from tests.proof.second_theorems import Answers, about_guards, about_invariants
from tests.proof.z3_engines import Files

_LOOPBACK = {4: "127.0.0.1", 6: "[::1]"}


def random_topology() -> Topology:
    """Return the small network with the names of interfaces that random rulesets ask for, and nobody to meet anybody.

    Its flow is relayed, and takes every port: the random rulesets hand what they like to a relay.
    """
    topology = small_topology("random", Assurance.TERMINATE)
    firewalls = {
        name: replace(
            each,
            interfaces=tuple(replace(end, name=new) for end, new in zip(each.interfaces, INTERFACES, strict=False)),
        )
        for name, each in topology.firewalls.items()
    }
    several = [("alpha", "beta"), ("gamma",)]
    never = [
        Invariant(f"{some[0]} to {others[0]}", Title("apart"), Selector(nodes=some), Selector(nodes=others), PLACE)
        for some, others in (several, several[::-1])
    ]
    service = replace(topology.services["app"], ports=(PortRange(1, 65535),))
    return replace(
        topology,
        firewalls=firewalls,
        invariants={each.id: each for each in never},
        services={service.id: service},
    )


def try_networks(rulesets: list[tuple[int, Ruleset]]) -> Iterator[Answers]:
    """Yield what both say of networks of two firewalls, with each two neighbours of some random rulesets."""
    topology = random_topology()
    for (seed, one), (_, other) in pairwise(rulesets):
        random = Random(seed)  # noqa: S311 - the same every time
        for family in Family:
            try:
                case = prepare(topology, dict(zip(topology.firewalls, (one, other), strict=True)), family)
                firewalls = {name: Firewall(case, name) for name in topology.firewalls}
                for firewall in firewalls.values():
                    answers = about_guards(firewall, *_guards(random, family))
                    yield replace(answers, about=f"seed {seed}, {answers.about}")
                answers = about_invariants(case, firewalls)
                yield replace(answers, about=f"seed {seed}, {answers.about}")
            except DDMemoryError:
                continue  # counted with the rulesets


def _guards(random: Random, family: Family) -> tuple[Guards, Files]:
    """Return the same twice: some interfaces with engines, and for some ports a relay, not always of the flow."""
    inline = frozenset(random.sample(INTERFACES, k=random.choice([0, 0, 1, 2])))
    relays = {port: random.choice(["notice", "other"]) for port in (*LISTENED, 7) if random.random() < 0.7}
    return (
        Guards(inline, {(family.version, port): name for port, name in relays.items()}),
        Files(inline, {(_LOOPBACK[family.version], port): name for port, name in relays.items()}),
    )
