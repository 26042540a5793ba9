"""Whether packets have the same written on them, in whichever steps it was."""

from __future__ import annotations

from netpolicy.proof import fields
from netpolicy.proof.packetset import PacketSet, Space
from netpolicy.proof.symbolic import overwritten
from netpolicy.proof.written import Sets, Written, together


def alike(space: Space, one: Sets, other: Sets) -> bool:
    """Tell whether sets are the same packets with the same written on each."""
    if together(space, one) != together(space, other):
        return False
    return not any(
        (packets & others & _apart(space, written, another)).satisfiable()
        for written, packets in one.items()
        for another, others in other.items()
        if written != another
    )


def _apart(space: Space, one: Written, other: Written) -> PacketSet:
    """Return the packets on which different things are written."""
    zoned = (one.of(fields.ZONE) is None) is not (other.of(fields.ZONE) is None)
    if zoned or one.diverted != other.diverted or one.hopped is not other.hopped:
        return space.true  # a zone that was set stays, even if it is the one that was there
    differing = []
    for each in sorted({each for each, _, _ in (*one.fields, *other.fields)}, key=str):
        bits = space.bits(each)
        pairs = zip(overwritten(space, each, one, bits), overwritten(space, each, other, bits), strict=True)
        differing += [bit ^ another for bit, another in pairs]
    return space.union(differing)
