"""Addresses, routes, policy rules and neighbours of a firewall: exactly those of its bundle."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

from appliance_image.agent.errors import AgentError
from appliance_image.agent.programs import run
from appliance_image.agent.root import Root

_BATCHES = {4: "ip.batch", 6: "ip6.batch"}
_OWN_TABLES = frozenset({"main", "100"})
_KERNEL_RULES = frozenset({(0, "local"), (32766, "main"), (32767, "default")})
"""Priority and table; those of the kernel look at nothing else of a packet."""


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One thing that is set, as both a batch and the kernel's listing come to say it."""

    kind: str
    """``address``, ``route``, ``rule``, ``neighbour`` or ``link``."""
    family: int
    """4 or 6; 0 for a link."""
    what: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join((self.kind, *self.what))


def wanted(files: Path) -> dict[Entry, tuple[int, str]]:
    """Return what a bundle sets, with the family of its batch, and its line there.

    Raises:
        AgentError: A batch is missing, or has a line of another kind.

    """
    found: dict[Entry, tuple[int, str]] = {}
    for family, name in _BATCHES.items():
        try:
            text = (files / name).read_text(encoding="utf-8")
        except OSError as missing:
            raise AgentError("network", f"the bundle has no {name}: {missing}") from missing
        for line in text.splitlines():
            words = line.split()
            if words and not words[0].startswith("#"):
                try:
                    found[_of_batch(words, family)] = (family, line)
                except (IndexError, ValueError, KeyError) as wrong:
                    raise AgentError("network", f"{name}: what is this: {line}") from wrong
    return found


def present(root: Root, devices: Iterable[str]) -> set[Entry]:
    """Return what this namespace's kernel has, but for what it makes itself.

    Args:
        root: Where programs are.
        devices: The firewall's interfaces; others are none of its business.

    Raises:
        AgentError: The kernel does not tell.

    """
    own = frozenset(devices)
    found = set(_addresses(root, own))
    for family in _BATCHES:
        for each in _json(root, f"-{family}", "route", "show", "table", "all"):
            found |= set(_live_route(each, family, own))
        for each in _json(root, f"-{family}", "rule", "show"):
            place = (int(each["priority"]), str(each.get("table", "")))
            if place not in _KERNEL_RULES or set(each) - {"priority", "table", "src", "protocol"}:
                found.add(Entry("rule", family, (str(each.get("fwmark", "")), place[1], str(place[0]))))
    for each in _json(root, "neighbour", "show", "nud", "permanent"):
        if each.get("dev") in own and "lladdr" in each:
            version = ip_interface(each["dst"]).version
            found.add(Entry("neighbour", version, (each["dst"], each["lladdr"].lower(), each["dev"])))
    return found


def _addresses(root: Root, own: frozenset[str]) -> Iterator[Entry]:
    for link in _json(root, "address", "show"):
        if link.get("ifname") not in own:
            continue
        if "UP" in link.get("flags", ()):
            yield Entry("link", 0, (link["ifname"], str(link["mtu"])))
        for each in link.get("addr_info", ()):
            value = ip_interface(f"{each['local']}/{each['prefixlen']}")
            yield Entry("address", value.version, (str(value), link["ifname"]))


def differences(root: Root, files: Path, devices: Iterable[str]) -> tuple[set[Entry], set[Entry]]:
    """Return what the kernel lacks of a bundle, and what it has beyond it.

    Raises:
        AgentError: The kernel does not tell.

    """
    expected, found = set(wanted(files)), present(root, devices)
    return expected - found, found - expected


def load(root: Root, files: Path, devices: Iterable[str]) -> None:
    """Have exactly what the bundle says, and leave alone what is so already.

    Raises:
        AgentError: The kernel refuses a line, or has something else afterwards.

    """
    run(root, ["ip", "link", "set", "dev", "lo", "up"], quiet=True)
    lines = wanted(files)
    missing, surplus = differences(root, files, devices)
    # Addresses take routes with them when they go: first what depends on others.
    _batch(root, [(each.family or 4, _removal(each)) for each in sorted(surplus, key=_order, reverse=True)])
    if surplus:
        missing, _ = differences(root, files, devices)
    _batch(root, [line for each, line in lines.items() if each in missing])
    missing, surplus = differences(root, files, devices)
    if missing or surplus:
        said = ", ".join([f"no {each}" for each in sorted(missing)] + [str(each) for each in sorted(surplus)])
        raise AgentError("network", f"the kernel has not taken the bundle's network: {said[:500]}")


def _of_batch(words: list[str], family: int) -> Entry:
    """Return what a line of a batch sets; see :mod:`netpolicy.host.network`."""
    options = dict(zip(words[3::2], words[4::2], strict=False))
    if words[:2] == ["address", "replace"]:
        value = ip_interface(words[2])
        return Entry("address", value.version, (str(value), options["dev"]))
    if words[:2] == ["link", "set"] and words[2] == "dev" and words[4] == "mtu" and words[6:] == ["up"]:
        return Entry("link", 0, (words[3], words[5]))
    if words[:2] == ["neighbour", "replace"]:
        version = ip_interface(words[2]).version
        return Entry("neighbour", version, (words[2], options["lladdr"].lower(), options["dev"]))
    if words[:2] == ["route", "replace"]:
        kind, rest = (words[2], words[3:]) if words[2] == "local" else ("unicast", words[2:])
        target = ip_network(rest[0])
        options = dict(zip(rest[1::2], rest[2::2], strict=False))
        where = (options.get("via", "-"), options["dev"], options.get("table", "main"))
        return Entry("route", target.version, (kind, str(target), *where))
    if words[:2] == ["rule", "add"]:
        options = dict(zip(words[2::2], words[3::2], strict=True))
        return Entry("rule", family, (options["fwmark"], options["lookup"], options["priority"]))
    raise ValueError(words)


def _live_route(route: Mapping[str, Any], family: int, own: frozenset[str]) -> Iterator[Entry]:
    table = str(route.get("table", "main"))
    if route.get("protocol") == "kernel" or table not in _OWN_TABLES:
        return
    if route.get("dev") not in own | {"lo"}:
        return
    everything = "0.0.0.0/0" if family == 4 else "::/0"
    target = ip_network(everything if route["dst"] == "default" else route["dst"])
    # Multicast routes are the kernel's own, whatever it says of their protocol.
    if target.is_multicast:
        return
    kind = str(route.get("type", "unicast"))
    yield Entry("route", family, (kind, str(target), str(route.get("gateway", "-")), str(route["dev"]), table))


def _removal(entry: Entry) -> str:
    what = entry.what
    if entry.kind == "address":
        return f"address del {what[0]} dev {what[1]}"
    if entry.kind == "link":
        return f"link set dev {what[0]} down"
    if entry.kind == "neighbour":
        return f"neighbour del {what[0]} dev {what[2]}"
    if entry.kind == "rule":
        mark = f"fwmark {what[0]} " if what[0] else ""
        return f"rule del {mark}lookup {what[1]} priority {what[2]}"
    kind, target, via, device, table = what
    gateway = "" if via == "-" else f"via {via} "
    return f"route del {kind} {target} {gateway}dev {device} table {table}"


def _order(entry: Entry) -> int:
    return ("link", "address", "neighbour", "rule", "route").index(entry.kind)


def _batch(root: Root, lines: list[tuple[int, str]]) -> None:
    for family in (4, 6):
        text = "".join(f"{line}\n" for each, line in lines if each == family)
        if text:
            run(root, ["ip", *(["-6"] if family == 6 else []), "-batch", "-"], given=text, quiet=True)


def _json(root: Root, *arguments: str) -> list[dict[str, Any]]:
    options = [each for each in arguments if each.startswith("-")]
    rest = [each for each in arguments if not each.startswith("-")]
    said = run(root, ["ip", "-json", *options, *rest])
    found: list[dict[str, Any]] = json.loads(said or "[]")
    return found
