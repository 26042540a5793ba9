"""What the kernel itself changes in headers on a packet's way, over the bits of the packet as it arrived."""

from __future__ import annotations

from netpolicy.proof import fields
from netpolicy.proof.fields import WALKED, Field
from netpolicy.proof.packetset import Bits, PacketSet, Space

OF_FRAGMENT_HEADER = frozenset({fields.EXTENSIONS["frag"], fields.NEXT_HEADER, fields.LENGTH})
"""What else reads when a Fragment header is gone."""
_FRAGMENT = next(number for number, name in WALKED.items() if name == "frag")
_HEADER_BITS = 3
"""It is 8 bytes long (RFC 8200)."""


def one_less(space: Space, bits: Bits, place: int = 0) -> Bits:
    """Return a number less 2 to the power of `place`, modulo its width."""
    found: list[PacketSet] = list(bits)
    borrow = space.true
    for index in reversed(range(len(bits) - place)):
        found[index] = bits[index] ^ borrow
        borrow = ~bits[index] & borrow
    return tuple(found)


def without_fragment_header(space: Space, wanted: Field) -> Bits:
    """Return the bits of a field after fragments were put together.

    A packet with a Fragment header that is no part of another (RFC 6946) loses the header there.
    """
    bits = space.bits(wanted)
    if wanted.family not in {None, space.family} or fields.EXTENSIONS["frag"].family is not space.family:
        return bits
    loses = space.where(fields.EXTENSIONS["frag"], 1) & ~space.fragments()
    if wanted is fields.NEXT_HEADER:
        loses &= space.where(fields.NEXT_HEADER, _FRAGMENT)
        new = space.bits(fields.PROTOCOL)
    elif wanted is fields.LENGTH:
        new = one_less(space, bits, _HEADER_BITS)
    else:
        new = (space.false,)
    return tuple(loses & after | ~loses & before for before, after in zip(bits, new, strict=True))
