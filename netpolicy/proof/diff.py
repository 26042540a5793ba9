"""Which packets one side passes and the other does not: all of them, as boxes, by flow and firewall."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from netpolicy.proof.boxes import Box, Cutter
from netpolicy.proof.fields import Family
from netpolicy.proof.packetset import PacketSet
from netpolicy.proof.sides import Limit, Passed, Side, Way, space_of


class Change(enum.StrEnum):
    """What has become of packets."""

    PERMITTED = "newly permitted"
    STOPPED = "newly stopped"


@dataclass(frozen=True, slots=True)
class Piece:
    """Packets for which one firewall has changed its mind."""

    change: Change
    flow: str | None
    """Of the side that permits; None if no flow is known."""
    firewall: str
    family: Family
    way: Way
    box: Box
    interfaces: tuple[str, ...]
    """What the numbers of interfaces in the box stand for."""


@dataclass(frozen=True, slots=True)
class LimitChange:
    """A flow is held to something else; that is not a matter of single packets."""

    flow: str
    old: tuple[str, ...]
    new: tuple[str, ...]
    firewalls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """All of it."""

    firewalls: tuple[str, ...]
    """Those of either side."""
    pieces: tuple[Piece, ...]
    """Disjoint within each firewall, family and way."""
    limits: tuple[LimitChange, ...]
    beside: tuple[str, ...] = ()
    """In what a running kernel is not as a build's files say beside the rules, in words."""
    unseen: tuple[str, ...] = ()
    """What a running kernel has no way to tell, and why that is not needed."""

    @property
    def empty(self) -> bool:
        """Whether both sides are the same."""
        return not self.pieces and not self.limits and not self.beside


def difference(old: Side, new: Side, *, only: str | None = None, same: Collection[str] = ()) -> Difference:
    """Compare two sides, at every firewall of either (or at one only), in both families.

    Args:
        old: What was.
        new: What is to be.
        only: The firewall that counts.
        same: Firewalls that are known to be the same on both sides.

    Raises:
        TooFineError: A part has no readable form.

    """
    firewalls = tuple(each for each in dict.fromkeys((*same, *old.firewalls, *new.firewalls)) if only in {None, each})
    pieces: list[Piece] = []
    for family in Family:
        differing = [firewall for firewall in firewalls if firewall not in same]
        cutter = Cutter(space_of((old, new), differing, family))
        for firewall in differing:
            pieces += _compared(old, new, firewall, cutter)
    return Difference(firewalls, tuple(pieces), tuple(_limits(old.limits(), new.limits(), frozenset(firewalls))))


def _compared(old: Side, new: Side, firewall: str, cutter: Cutter) -> Iterator[Piece]:
    space = cutter.space
    before, after = old.passed(firewall, space), new.passed(firewall, space)
    for change, more, less in ((Change.PERMITTED, after, before), (Change.STOPPED, before, after)):
        for way in Way:
            packets = more.ways[way] & ~less.ways[way]
            for flow, part in _by_flow(packets, more, way):
                for box in cutter.cut(part):
                    yield Piece(change, flow, firewall, space.family, way, box, space.names)


def _by_flow(packets: PacketSet, passed: Passed, way: Way) -> Iterator[tuple[str | None, PacketSet]]:
    """Yield disjoint parts of packets, each with the first flow that has them."""
    for flow, sets in passed.by_flow.items():
        if not packets.satisfiable():
            return
        if way in sets:
            yield flow, packets & sets[way]
            packets &= ~sets[way]
    yield None, packets


def _limits(old: frozenset[Limit], new: frozenset[Limit], firewalls: frozenset[str]) -> Iterator[LimitChange]:
    """Yield what changed of flows that are on both sides of a firewall, firewalls with the same change together."""
    found: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for flow, firewall in sorted({(each.flow, each.firewall) for each in old ^ new if each.firewall in firewalls}):
        mine, theirs = (
            tuple(sorted(each.text for each in side if (each.flow, each.firewall) == (flow, firewall)))
            for side in (old, new)
        )
        if mine and theirs:
            found.setdefault((flow, mine, theirs), []).append(firewall)
    for (flow, before, after), places in found.items():
        yield LimitChange(flow, before, after, tuple(places))
