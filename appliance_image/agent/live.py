"""Whether the kernel holds the rules of a bundle: the very same, or ones that do the same with every packet."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from appliance_image.agent.errors import AgentError
from netpolicy.proof.boxes import TooFineError
from netpolicy.proof.diff import Change, difference
from netpolicy.proof.difftext import groups, text
from netpolicy.proof.fold import lines
from netpolicy.proof.frames import read_frames, read_live_frames
from netpolicy.proof.model import Ruleset
from netpolicy.proof.names import Names
from netpolicy.proof.netlink import MalformedError
from netpolicy.proof.read import LOADED, LoadError, MissingError, read_builds, read_live
from netpolicy.proof.settled import doors_differ
from netpolicy.proof.sides import BuildSide
from netpolicy.proof.surroundings import surroundings
from netpolicy.proof.terms import RefusedError

_MOST = 200
"""Lines of a difference; a difference of more is told by its first."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the kernel's rules compare with a bundle's."""

    identical: bool
    """Whether they read the same, rule by rule, element by element."""
    equal: bool
    """Whether they do the same with every packet."""
    packets: tuple[str, ...]
    """Those that fare otherwise, in words; what the bundle does not know of the kernel's rules, if they are unclear."""
    ruleset: Ruleset | None
    """What the kernel holds."""
    unseen: tuple[str, ...]
    """What this kernel has no way to tell, and why that is not needed."""


def compare(firewall: str, files: Path, interfaces: Collection[str]) -> Comparison:
    """Compare the rules of this network namespace with those of a bundle, which are loaded in one of their own.

    Raises:
        AgentError: This cannot be found out.

    """
    try:
        (signed,) = read_builds([files])
        (doors,) = read_frames([([files / name for name in LOADED], sorted(interfaces))])
    except (LoadError, MissingError, RefusedError) as failed:
        raise AgentError("proof", f"the bundle's rules cannot be read back: {failed}") from failed
    try:
        found, taken, beside = read_live(), read_live_frames(), surroundings()
    except RefusedError as unknown:
        return Comparison(False, False, (f"rules that no bundle has: {unknown}",), None, ())
    except (LoadError, MissingError, MalformedError, OSError) as failed:
        raise AgentError("proof", f"the kernel's rules cannot be read: {failed}") from failed
    words = (*(f"beside the rules: {each}" for each in beside.found), *doors_differ(doors, taken, interfaces))
    if found == signed and not words:
        return Comparison(True, True, (), found, beside.unseen)
    words = (*words, *_differences(firewall, signed, found))
    return Comparison(False, not words, words, found, beside.unseen)


def _differences(firewall: str, signed: Ruleset, found: Ruleset) -> Iterator[str]:
    try:
        change = difference(BuildSide({firewall: signed}), BuildSide({firewall: found}), only=firewall)
    except (TooFineError, RefusedError) as unclear:
        yield f"they differ, in a way that has no readable form: {unclear}"
        return
    if not change.empty:
        told = lines(change.pieces, dict.fromkeys(Change, Names(None)), lambda _client, _server: ())
        yield from text(change, groups(change, told, dict.fromkeys(Change)), _MOST, everything=True)
