"""Each firewall accepts exactly what its flows say: nothing more, nothing less; and answers to it, exactly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from netpolicy.proof import fields
from netpolicy.proof.case import Case, Finding, found
from netpolicy.proof.expected import Demanded
from netpolicy.proof.fields import REPLY, State
from netpolicy.proof.judged import Judged
from netpolicy.proof.model import Hook
from netpolicy.proof.packetset import PacketSet, Space
from netpolicy.proof.symbolic import Listens

ACCEPTS, ANSWERS = "exact", "answers"


@dataclass(frozen=True, slots=True)
class _Way:
    """One way for packets to get on, as it is and as it should be."""

    verb: str
    hooks: tuple[Hook, ...]
    is_so: PacketSet
    demanded: Mapping[str, PacketSet]
    possible: PacketSet
    """What can come this way at all."""


def exact(case: Case, firewall: str) -> Iterator[Finding]:
    """Yield where a firewall passes on more or less than it must."""
    judged, demanded, space = case.judged[firewall], case.demanded[firewall], case.space
    answer = space.where(fields.DIRECTION, REPLY) | space.in_state(State.RELATED)
    for way in _ways(judged, demanded):
        wanted = space.union(list(way.demanded.values())) & way.possible
        at_most = space.possibly(way.is_so)
        at_least = space.surely(way.is_so | ~_listening(judged))
        for theorem, part in ((ACCEPTS, ~answer), (ANSWERS, answer)):
            yield from _more(theorem, judged, way, at_most & ~wanted & part, space)
            yield from _less(theorem, judged, way, wanted & ~at_most & part, space)
            refused = wanted & ~at_least & ~demanded.limited & at_most & part
            yield from _less(theorem, judged, way, refused, space)


def _ways(judged: Judged, demanded: Demanded) -> Iterator[_Way]:
    space = judged.space
    fresh = space.where(fields.MARK, 0) & space.where(fields.ZONE, 0) & space.where(fields.CT_MARK, 0)
    leaving = fresh & space.valid & ~space.interface(fields.OIF, ("",)) & ~space.fragments()
    arriving = judged.arriving & ~space.fragments()
    diverted = space.union(list(judged.diverted.values()))
    yield _Way(
        "passes on", (Hook.PREROUTING, Hook.FORWARD, Hook.POSTROUTING), judged.forwarded, demanded.forwarded,
        arriving & leaving,
    )
    yield _Way("hands to its relay", (Hook.PREROUTING, Hook.INPUT), diverted, demanded.diverted, arriving)
    yield _Way("takes", (Hook.PREROUTING, Hook.INPUT), judged.delivered, demanded.delivered, arriving)
    yield _Way("says", (Hook.OUTPUT, Hook.POSTROUTING), judged.sent, demanded.sent, leaving)


def _listening(judged: Judged) -> PacketSet:
    """Return the packets that come while every relay listens."""
    space = judged.space
    found = space.true
    for port in judged.diverted:
        found &= space.unknown(Listens(judged.host, port))
    return found


def _more(theorem: str, judged: Judged, way: _Way, packets: PacketSet, space: Space) -> Iterator[Finding]:
    picked = space.pick(way.is_so & packets)
    if picked is not None:
        yield found(theorem, judged, way.hooks, picked, f"{way.verb} what no flow permits", None)


def _less(theorem: str, judged: Judged, way: _Way, packets: PacketSet, space: Space) -> Iterator[Finding]:
    picked = space.pick(packets & ~way.is_so & _listening(judged))
    if picked is not None:
        one = space.of(picked.packet)
        flow = next((flow for flow, wanted in way.demanded.items() if (one & wanted).satisfiable()), None)
        yield found(theorem, judged, way.hooks, picked, f"{way.verb} less than flow '{flow}' permits", flow)


