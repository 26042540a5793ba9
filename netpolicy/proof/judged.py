"""What one firewall's kernel does with everything: from the wires, through every hook, and of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from netpolicy.proof import fields
from netpolicy.proof.fields import Family
from netpolicy.proof.model import Hook, Ruleset
from netpolicy.proof.packetset import PacketSet, Space
from netpolicy.proof.symbolic import Kernel
from netpolicy.proof.written import Sets, Written, together

LOOPBACK = "lo"


@dataclass(frozen=True, slots=True)
class Judged:
    """One ruleset in one family. Sets depend on unknowns: limits, and whether a relay listens.

    Routing is left open: a packet that gets through prerouting is judged as if it could leave by every interface, and
    as if it could be for the host itself.
    """

    host: str
    ruleset: Ruleset
    space: Space
    arriving: PacketSet
    """What can come by a wire: no mark and no zone, and not from the loopback device."""
    forwarded: PacketSet
    delivered: PacketSet
    """To a socket of the host, the relay's among them."""
    diverted: dict[int, PacketSet]
    """Of those, what was handed to a listener of this port."""
    sent: PacketSet
    """Of what the host itself says."""
    kernel: Kernel
    """With the record of what came to which rule."""


def space_for(family: Family, rulesets: Iterable[Ruleset], interfaces: Iterable[str]) -> Space:
    """Return a space in which some rulesets can be judged and compared.

    Args:
        family: Of the packets.
        rulesets: All that will be judged in it.
        interfaces: Names that count beside those the rulesets ask for.

    """
    return Space.over(family, {LOOPBACK, *interfaces, *(name for ruleset in rulesets for name in ruleset.names())})


def judge(host: str, ruleset: Ruleset, space: Space, *, marked: bool = False) -> Judged:
    """Return what a ruleset does with all packets of a space.

    Args:
        host: Whose ruleset it is.
        ruleset: As read back from a kernel.
        space: Of the packets; knows every interface's name that the ruleset asks for.
        marked: Packets may have any mark, as other tables may give them.

    """
    fresh = space.valid if marked else space.valid & unmarked(space)
    arriving = fresh & ~space.interface(fields.IIF, ("", LOOPBACK))
    kernel = Kernel(host, ruleset, space)
    looped = fresh & space.interface(fields.IIF, (LOOPBACK,))
    kernel.through(Hook.INPUT, kernel.through(Hook.PREROUTING, {Written(): looped}))
    inside = kernel.through(Hook.PREROUTING, {Written(): arriving})
    leaving = {written: packets & ~space.interface(fields.OIF, ("",)) for written, packets in inside.items()}
    forwarded = kernel.through(Hook.POSTROUTING, kernel.through(Hook.FORWARD, leaving))
    delivered = kernel.through(Hook.INPUT, inside)
    # What the host says came by no interface. Its programs may say fragments: the relay may open raw sockets.
    said = fresh & space.interface(fields.IIF, ("",)) & ~space.interface(fields.OIF, ("",))
    sent = kernel.through(Hook.POSTROUTING, kernel.through(Hook.OUTPUT, {Written(): said}))
    return Judged(
        host=host,
        ruleset=ruleset,
        space=space,
        arriving=arriving,
        forwarded=together(space, forwarded),
        delivered=together(space, delivered),
        diverted=_by_port(space, delivered),
        sent=together(space, sent),
        kernel=kernel,
    )


def unmarked(space: Space) -> PacketSet:
    """Return the packets that no rule has marked yet."""
    return space.where(fields.MARK, 0) & space.where(fields.ZONE, 0) & space.where(fields.CT_MARK, 0)


def _by_port(space: Space, sets: Sets) -> dict[int, PacketSet]:
    found: dict[int, PacketSet] = {}
    for written, packets in sets.items():
        if written.diverted is not None:
            found[written.diverted] = found.get(written.diverted, space.false) | packets
    return found
