"""What a firewall's rules let in to the firewall itself, by interface: proven from what a kernel holds, not scanned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from appliance_image.hardening.figures import AuditError, Figure, LackingError, Mark, Section
from netpolicy.proof import fields
from netpolicy.proof.fields import Family, Field, State
from netpolicy.proof.judged import LOOPBACK, judge, space_for
from netpolicy.proof.model import Ruleset
from netpolicy.proof.packetset import PacketSet, Space
from netpolicy.proof.read import LoadError, MissingError, read_builds
from netpolicy.proof.terms import RefusedError

_FILES = ("guard.nft", "nftables.nft")
_PORTS = {fields.TCP: "tcp", fields.UDP: "udp"}
_CONTROL = {fields.ICMP: "icmp", fields.ICMPV6: "icmpv6"}
_NEEDED = {"icmpv6 135": "neighbour solicitation: IPv6 does not work without an answer (RFC 4861)"}
"""What interfaces may answer although nobody has opened a connection."""
_BY_FLOW = "to the relay, for the pairs of the topology alone; the relay asks both sides for certificates"
_OPENING = (State.NEW, State.UNTRACKED, State.INVALID)
"""States of packets that no connection of the firewall's own, or that its rules know, has led to."""


def section(firewalls: Iterable[tuple[str, Path]]) -> Section:
    """Return what firewalls let in to themselves.

    Args:
        firewalls: Their names, and the directories of their compiled files.

    Raises:
        AuditError: nft refuses the rules, or they have something that the proof does not know.
        LackingError: This is not root, or python3-nftables is missing.

    """
    wanted = list(firewalls)
    try:
        rulesets = read_builds(files for _, files in wanted)
    except MissingError as lacking:
        raise LackingError(str(lacking)) from lacking
    except (LoadError, RefusedError) as refused:
        raise AuditError(f"the rules cannot be read back: {refused}") from refused
    figures = [
        figure
        for (name, files), ruleset in zip(wanted, rulesets, strict=True)
        for figure in _figures(name, ruleset, interfaces(files))
    ]
    return Section("ports", "Open on each interface, by the rules", tuple(figures))


def interfaces(files: Path) -> list[str]:
    """Return a firewall's interfaces: the devices that its addresses are put on.

    Raises:
        AuditError: Its files do not tell.

    """
    found: dict[str, None] = {}
    for name in ("ip.batch", "ip6.batch"):
        try:
            text = (files / name).read_text("utf-8")
        except OSError as missing:
            raise AuditError(f"{files} is no compiled firewall: {missing}") from missing
        for line in text.splitlines():
            words = line.split()
            if words[:1] == ["address"] and "dev" in words:
                found[words[words.index("dev") + 1]] = None
    return sorted(set(found) - {LOOPBACK})


def _figures(firewall: str, ruleset: Ruleset, devices: list[str]) -> Iterator[Figure]:
    own: dict[str, list[str]] = {each: [] for each in devices}
    relayed: dict[str, list[str]] = {each: [] for each in devices}
    for family in Family:
        space = space_for(family, [ruleset], devices)
        judged = judge(firewall, ruleset, space)
        opening = space.in_state(*_OPENING)
        to_relay = space.possibly(space.union(list(judged.diverted.values())))
        delivered = space.possibly(judged.delivered) & opening & ~to_relay
        for device in devices:
            at = space.interface(fields.IIF, (device,))
            own[device] += [each for each in what(space, delivered & at) if each not in own[device]]
            relayed[device] += [each for each in what(space, to_relay & opening & at) if each not in relayed[device]]
    for device in devices:
        open_here = [each for each in own[device] if each not in _NEEDED]
        name = f"{firewall} {device}"
        yield Figure(name, ", ".join(open_here) or "none", Mark.OVER if open_here else Mark.HOLDS, "none")
        for each in own[device]:
            if each in _NEEDED:
                yield Figure(name, each, Mark.EXCEPTED, "none", _NEEDED[each])
        if relayed[device]:
            yield Figure(name, ", ".join(relayed[device]), Mark.EXCEPTED, "none", _BY_FLOW)


def what(space: Space, packets: PacketSet) -> Iterator[str]:
    """Yield what packets are for: ports of TCP and UDP, types of ICMP, other protocols."""
    for number in range(256):
        some = packets & space.where(fields.PROTOCOL, number)
        if not some.satisfiable():
            continue
        if number in _PORTS:
            spans = _spans(space, some, fields.DPORT)
            yield from (f"{_PORTS[number]} {first}" + (f"-{last}" if last > first else "") for first, last in spans)
        elif number in _CONTROL:
            # Type and code are where the source port would be.
            spans = _spans(space, some, fields.SPORT)
            types = sorted({kind for first, last in spans for kind in range(first >> 8, (last >> 8) + 1)})
            yield from (f"{_CONTROL[number]} {each}" for each in types)
        else:
            yield f"protocol {number}"


def _spans(space: Space, packets: PacketSet, wanted: Field) -> list[tuple[int, int]]:
    """Return the numbers that a field has in a set, as spans."""
    others = [each for each in fields.FIELDS if each is not wanted and each.family in {None, space.family}]
    numbers = space.without(packets, others)

    def spans(low: int, left: int) -> list[tuple[int, int]]:
        last = low + (1 << left) - 1
        here = space.where(wanted, low, last)
        if not (numbers & here).satisfiable():
            return []
        if left == 0 or not (~numbers & here).satisfiable():
            return [(low, last)]
        found = spans(low, left - 1)
        for one in spans(low + (1 << (left - 1)), left - 1):
            if found and found[-1][1] + 1 == one[0]:
                found[-1] = (found[-1][0], one[1])
            else:
                found.append(one)
        return found

    return spans(0, space.width(wanted))
