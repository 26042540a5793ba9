"""From what a person names to a difference: topologies, builds, and the kernel of this network namespace."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from netpolicy.proof.diff import Change, Difference, difference
from netpolicy.proof.difftext import Group, groups
from netpolicy.proof.fold import lines
from netpolicy.proof.names import Names, moved
from netpolicy.proof.read import RULESETS, read_builds, read_live
from netpolicy.proof.settled import unsettled
from netpolicy.proof.sides import BuildSide, Side, TopologySide
from netpolicy.proof.source import read_source
from netpolicy.proof.surroundings import surroundings
from netpolicy.proof.terms import RefusedError
from netpolicy.topology.load import load_topology
from netpolicy.topology.model import Topology

LIVE = "live"


class ComparisonError(ValueError):
    """What is named cannot be compared; says why."""


def compare(
    old: str, new: str, *, firewall: str | None = None, topology: Path | None = None
) -> tuple[Difference, tuple[Group, ...]]:
    """Return all that differs, and the same by flow.

    Args:
        old: A topology's file, a build's directory, or ``live``.
        new: The same kind of thing; ``live`` goes with a build.
        firewall: Only this one.
        topology: Names for builds.

    Raises:
        ComparisonError: They do not go together, or name what is not there.
        InputError: A topology is refused.
        LoadError, MissingError, RefusedError: As :func:`netpolicy.proof.read.read_builds`.
        MalformedError, OSError, NetworkError, SettingError: As :func:`netpolicy.proof.settled.unsettled`.
        TooFineError: As :func:`netpolicy.proof.diff.difference`.

    """
    kinds = [_kind(each) for each in (old, new)]
    if kinds == ["topology", "topology"]:
        if topology is not None:
            raise ComparisonError("--topology names the topology of builds; topologies have names of their own")
        return _topologies(Path(old), Path(new), firewall)
    if "topology" in kinds:
        given = old if kinds[0] == "topology" else new
        raise ComparisonError(
            f"{given} is a topology, which goes with another topology: 'netpolicy compile' makes a build of it"
        )
    if kinds == [LIVE, LIVE]:
        raise ComparisonError("'live' is compared with a build")
    if LIVE in kinds and firewall is None:
        raise ComparisonError("which firewall 'live' is, --firewall must say")
    around = surroundings() if LIVE in kinds else None
    if around is not None and around.found:
        raise RefusedError("; ".join(around.found), LIVE)
    known = load_topology(topology).topology if topology is not None else None
    before, after, same = _rulesets([None if each == LIVE else Path(each) for each in (old, new)], firewall)
    found = difference(before, after, only=firewall, same=same)
    if around is not None and firewall is not None:
        files = Path(new if kinds[0] == LIVE else old) / firewall
        found = replace(found, beside=tuple(unsettled(files)), unseen=around.unseen)
    names = Names(known)
    order = TopologySide(known).way if known is not None else _unordered
    told = lines(found.pieces, dict.fromkeys(Change, names), order)
    return found, groups(found, told, dict.fromkeys(Change, known))


def _topologies(old: Path, new: Path, firewall: str | None) -> tuple[Difference, tuple[Group, ...]]:
    before, after = (TopologySide(load_topology(path).topology) for path in (old, new))
    _known(firewall, (*before.firewalls, *after.firewalls))
    found = difference(before, after, only=firewall)
    changed = moved(before.topology, after.topology)
    names = {
        Change.PERMITTED: Names(after.topology, changed),
        Change.STOPPED: Names(before.topology, changed),
    }

    def order(client: str, server: str) -> tuple[str, ...]:
        return after.way(client, server) or before.way(client, server)

    topologies: dict[Change, Topology | None] = {
        Change.PERMITTED: after.topology,
        Change.STOPPED: before.topology,
    }
    return found, groups(found, lines(found.pieces, names, order), topologies)


def _rulesets(places: list[Path | None], firewall: str | None) -> tuple[Side, Side, list[str]]:
    """Return what the kernel makes of both sides; and the firewalls whose files are the same, which are not read."""
    listed = [None if place is None else _firewalls(place) for place in places]
    _known(firewall, (name for names in listed for name in names or ()))
    same = []
    if places[0] is not None and places[1] is not None:
        both = [name for name in listed[0] or () if name in (listed[1] or ()) and firewall in {None, name}]
        same = [name for name in both if _bytes(places[0] / name) == _bytes(places[1] / name)]
    sides = []
    for place, names in zip(places, listed, strict=True):
        if place is None:
            assert firewall is not None  # noqa: S101 - the caller has asked for it
            sides.append(BuildSide({firewall: read_live()}))
            continue
        wanted = [name for name in names or () if firewall in {None, name} and name not in same]
        read = read_builds(place / name for name in wanted)
        sides.append(BuildSide(dict(zip(wanted, read, strict=True))))
    return sides[0], sides[1], same


def _bytes(firewall: Path) -> list[bytes]:
    return [read_source(firewall / file, whole=False).encode() for file in RULESETS]


def _kind(given: str) -> str:
    if given == LIVE:
        return LIVE
    path = Path(given)
    if path.is_dir():
        return "build"
    if path.is_file():
        return "topology"
    raise ComparisonError(f"{given} is neither a topology, nor a build, nor 'live'")


def _firewalls(build: Path) -> list[str]:
    """Return the firewalls of a build, all of whose rulesets are there."""
    try:
        manifest = json.loads((build / "manifest.json").read_text(encoding="utf-8"))
        found = [str(name) for name in manifest["firewalls"]]
    except (OSError, ValueError, KeyError, TypeError) as missing:
        raise ComparisonError(f"{build} holds no manifest.json that tells its firewalls: it is no build") from missing
    for name in found:
        for file in RULESETS:
            if not (build / name / file).is_file():
                raise ComparisonError(f"{build / name / file} is missing")
    return found


def _known(firewall: str | None, valid: Iterable[str]) -> None:
    names = sorted(set(valid))
    if firewall is None or firewall in names:
        return
    near = get_close_matches(firewall, names, 1)
    raise ComparisonError(f"there is no firewall '{firewall}'" + (f"; did you mean '{near[0]}'?" if near else ""))


def _unordered(_client: str, _server: str) -> tuple[str, ...]:
    return ()
