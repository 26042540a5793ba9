"""Which frames a kernel takes from its wires: the chains at ingress, read back from it, and what they must be."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from netpolicy.environment import ENVIRONMENT
from netpolicy.proof.case import Finding
from netpolicy.proof.read import LoadError, MissingError, Runner, run_here, texts_of
from netpolicy.proof.terms import RefusedError
from netpolicy.topology.model import Firewall, Interface

FRAMES = "frames"
_LISTER = Path(__file__).with_name("frame_lister.py")
_SECONDS = 60.0
_PRIORITY = -500
_TYPES = {"ip": 0x0800, "arp": 0x0806, "ip6": 0x86DD, "vlan": 0x8100, "8021q": 0x8100, "8021ad": 0x88A8}
_KINDS = {"host": 0, "unicast": 0, "broadcast": 1, "multicast": 2, "other": 3}
"""linux/if_packet.h: for whom a frame is, by its MAC address."""
_OPERATIONS = {"request": 1, "reply": 2}
_IPV4, _ARP, _IPV6 = _TYPES["ip"], _TYPES["arp"], _TYPES["ip6"]
_TRIED = (_IPV4, _ARP, _IPV6, 0x8100, 0x88A8, 0x9100, 0x0003, 0x8847, 0x8864, 0x88E5, 0x88B5)
"""EtherTypes that are asked about whatever the rules compare with; all that they do not name fare alike."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What the chains can see of a frame, as it was on the wire: with a tag its type is the tag's."""

    ethertype: int
    kind: int
    operation: int = 0
    """Of ARP (RFC 826)."""
    target: str = ""
    """Of ARP: whose MAC address is asked for."""

    def __str__(self) -> str:
        """Return it in words."""
        to = next(name for name, kind in _KINDS.items() if kind == self.kind)
        arp = f", operation {self.operation}, about {self.target}" if self.ethertype == _ARP else ""
        return f"EtherType 0x{self.ethertype:04x}, to {to}{arp}"


@dataclass(frozen=True, slots=True)
class Rule:
    """Conditions that must all be met, and what then becomes of a frame."""

    conditions: tuple[tuple[str, frozenset[int | str]], ...]
    accept: bool | None
    """None: nothing, it only counts or logs."""

    def fits(self, frame: Frame) -> bool:
        """Tell whether a frame meets it."""
        seen: dict[str, int | str] = {
            "type": frame.ethertype,
            "kind": frame.kind,
            "operation": frame.operation,
            "target": frame.target,
        }
        arp = any(name in {"operation", "target"} for name, _ in self.conditions)
        return (not arp or frame.ethertype == _ARP) and all(seen[name] in values for name, values in self.conditions)


@dataclass(frozen=True, slots=True)
class Door:
    """One chain at the ingress of one device."""

    device: str
    priority: int
    policy: bool
    """Whether it accepts what no rule decides."""
    rules: tuple[Rule, ...]

    def passes(self, frame: Frame) -> bool:
        """Tell whether it lets a frame in."""
        for rule in self.rules:
            if rule.accept is not None and rule.fits(frame):
                return rule.accept
        return self.policy


@dataclass(frozen=True, slots=True)
class Doors:
    """All of a kernel's, and the devices that there are."""

    doors: tuple[Door, ...]
    devices: frozenset[str]


def read_frames(groups: Iterable[tuple[Sequence[Path], Sequence[str]]]) -> list[Doors]:
    """Load groups of a build's files, each beside devices of some names, and return what the kernel then holds.

    Raises:
        LoadError, MissingError, RefusedError: As :func:`netpolicy.proof.read.read_rulesets`.

    """
    known = list(groups)
    texts = texts_of((paths for paths, _ in known), whole=True)
    return _list([[each, list(devices)] for each, (_, devices) in zip(texts, known, strict=True)], run_here)


def read_live_frames(run: Runner | None = None) -> Doors:
    """Return what the kernel of a network namespace holds; by default, of this process's own.

    Raises:
        LoadError, MissingError, RefusedError: As :func:`netpolicy.proof.read.read_rulesets`.

    """
    return _list([None], run or run_here)[0]


def frames(firewall: Firewall, doors: Doors) -> Iterator[Finding]:
    """Yield frames that a firewall takes and must not, and the other way; and interfaces without a door."""
    for interface in firewall.interfaces:
        own = [each for each in doors.doors if each.device == interface.name]
        if not own or interface.name not in doors.devices:
            what = "no chain stands at the ingress of" if interface.name in doors.devices else "there is no device"
            packet = str(Frame(0x8100, 0)) if interface.name in doors.devices else None
            yield Finding(FRAMES, firewall.id, f"{what} {interface.name}", packet)
        elif _PRIORITY not in {each.priority for each in own}:
            yield Finding(FRAMES, firewall.id, f"no chain at {interface.name} has priority {_PRIORITY}")
        else:
            yield from _wrong(firewall, interface, own)
    known = {interface.name for interface in firewall.interfaces}
    for door in doors.doors:
        if door.device not in known:
            yield Finding(FRAMES, firewall.id, f"a chain stands at {door.device}, which is no interface of it")


def _wrong(firewall: Firewall, interface: Interface, own: Sequence[Door]) -> Iterator[Finding]:
    """Yield the first frame that passes and must not, and the first that must and does not."""
    seen = set()
    for frame in _representatives(interface, own):
        passes, may = all(each.passes(frame) for each in own), _may_pass(interface, frame)
        if passes != may and passes not in seen:
            seen.add(passes)
            what = "takes from" if passes else "does not take from"
            yield Finding(
                FRAMES, firewall.id, f"{what} {interface.name} a frame that it must{' not' * passes}", str(frame)
            )


def _may_pass(interface: Interface, frame: Frame) -> bool:
    """Tell what the topology says: IP of the interface's families, and ARP's questions for its addresses."""
    versions = {address.version for address in interface.addresses}
    if frame.ethertype == _IPV4:
        return 4 in versions and frame.kind == _KINDS["host"]
    if frame.ethertype == _IPV6:
        return 6 in versions and frame.kind in {_KINDS["host"], _KINDS["multicast"]}
    asked = {str(address) for address in interface.addresses if address.version == 4}
    return frame.ethertype == _ARP and frame.operation == _OPERATIONS["request"] and frame.target in asked


def _representatives(interface: Interface, own: Sequence[Door]) -> Iterator[Frame]:
    """Yield one frame of each class that neither rules nor the topology tell apart."""
    rules = [rule for door in own for rule in door.rules]
    named: dict[str, set[int | str]] = {"type": set(_TRIED), "operation": {1, 2}, "target": {"192.0.2.1"}}
    for rule in rules:
        for name, values in rule.conditions:
            named.setdefault(name, set()).update(values)
    named["target"].update(str(address) for address in interface.addresses if address.version == 4)
    for ethertype, kind in product(sorted(map(int, named["type"])), sorted(set(_KINDS.values()))):
        if ethertype != _ARP:
            yield Frame(ethertype, kind)
            continue
        for operation, target in product(sorted({*map(int, named["operation"]), 3}), sorted(map(str, named["target"]))):
            yield Frame(ethertype, kind, operation, target)


def _list(groups: Sequence[list[Any] | None], run: Runner) -> list[Doors]:
    if os.geteuid() != 0:
        raise MissingError("reading rulesets back from the kernel takes root")
    done = run([sys.executable, "-I", str(_LISTER)], input=json.dumps(groups), timeout=_SECONDS, env=ENVIRONMENT)
    if done.returncode == 3:
        raise MissingError(done.stderr.strip())
    if done.returncode:
        raise LoadError(done.stderr.strip() or f"nft ended with {done.returncode}")
    return [
        Doors(
            tuple(
                _doors(
                    json.loads(each["listing"])["nftables"],
                    {(table, name): devices for table, name, devices in each["chains"]},
                )
            ),
            frozenset(each["devices"]),
        )
        for each in json.loads(done.stdout)
    ]


def _doors(objects: Sequence[Mapping[str, Any]], devices: Mapping[tuple[str, str], Sequence[str]]) -> Iterator[Door]:
    rules: dict[tuple[str, str], list[Rule]] = {}
    chains = []
    for kind, each in (next(iter(one.items())) for one in objects):
        if kind == "rule":
            place = f"netdev {each['table']} {each['chain']}"
            rules.setdefault((each["table"], each["chain"]), []).append(_rule(each["expr"], place))
        elif kind == "chain":
            chains.append(each)
        elif kind not in {"metainfo", "table", "counter"}:
            raise RefusedError(f"{kind} of family netdev", str(each.get("name", "")))
        elif kind == "table" and each.get("flags"):
            raise RefusedError(f"flags {each['flags']}", f"table netdev {each['name']}")
    for each in chains:
        place = f"netdev {each['table']} {each['name']}"
        if each.get("hook") != "ingress" or each.get("type") != "filter":
            raise RefusedError(f"hook {each.get('hook')}", place)
        for device in devices[each["table"], each["name"]]:
            listed = tuple(rules.get((each["table"], each["name"]), ()))
            yield Door(device, int(each["prio"]), each.get("policy", "accept") == "accept", listed)


def _rule(statements: Sequence[Any], place: str) -> Rule:
    conditions = []
    accept = None
    limited = False
    for each in statements:
        kind, value = next(iter(each.items()))
        if kind == "match":
            conditions.append(_condition(value, place))
        elif kind in {"accept", "drop"}:
            if limited:
                raise RefusedError("a verdict behind a limit", place)
            accept = kind == "accept"
        elif kind == "limit":
            limited = True
        elif kind not in {"counter", "log"}:
            raise RefusedError(kind, place)
    return Rule(tuple(conditions), accept)


def _condition(given: Mapping[str, Any], place: str) -> tuple[str, frozenset[int | str]]:
    left, right = given["left"], given["right"]
    if given["op"] != "==":
        raise RefusedError(f"operator {given['op']}", place)
    values = right["set"] if isinstance(right, dict) and set(right) == {"set"} else [right]
    payload, meta = left.get("payload", {}), left.get("meta", {})
    what = (payload.get("protocol"), payload.get("field")) if payload else ("meta", meta.get("key"))
    names: Mapping[str, int]
    field = {
        ("ether", "type"): "type",
        ("meta", "pkttype"): "kind",
        ("arp", "operation"): "operation",
        ("arp", "daddr ip"): "target",
    }.get(what)
    if field is None:
        raise RefusedError(f"{what[0]} {what[1]}", place)
    names = {"type": _TYPES, "kind": _KINDS, "operation": _OPERATIONS}.get(field, {})
    if field == "target":
        return field, frozenset(str(each) for each in values)
    return field, frozenset(_number(each, names, place) for each in values)


def _number(given: Any, names: Mapping[str, int], place: str) -> int:
    if isinstance(given, int):
        return given
    if isinstance(given, str) and given in names:
        return names[given]
    try:
        return int(given, 0)
    except (TypeError, ValueError):
        raise RefusedError(f"the value {given!r}", place) from None
