"""Addresses, links, neighbours, policy rules and routes of a firewall: what its files say, and what a kernel has.

The kernel is asked over rtnetlink (rtnetlink(7)) for all tables and devices. What it makes by itself from the addresses
that it has is known by what it says, never by who is said to have made it: a route can claim any origin.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from pathlib import Path

from netpolicy.proof.netlink import DUMP, NETLINK_ROUTE, ChangedError, Netlink, attributes, text

BATCHES = {4: "ip.batch", 6: "ip6.batch"}
"""Files of a build, by the family that ``ip`` is told."""
_TRIES = 5
"""To read what changes meanwhile."""

# linux/rtnetlink.h, if_link.h, if_addr.h, neighbour.h, fib_rules.h
_GET_LINK, _GET_ADDRESS, _GET_ROUTE, _GET_NEIGHBOUR, _GET_RULE = 18, 22, 26, 30, 34
_LINK, _ADDRESS = struct.Struct("=BBHiII"), struct.Struct("=BBBBi")
_ROUTE, _RULE, _NEIGHBOUR = struct.Struct("=BBBBBBBBI"), struct.Struct("=BBBBBBBBI"), struct.Struct("=BBHiHBB")
_FAMILIES = {2: 4, 10: 6}
_TABLES = {253: "default", 254: "main", 255: "local"}
_TYPES = {1: "unicast", 2: "local", 3: "broadcast", 4: "anycast", 5: "multicast", 6: "blackhole", 7: "unreachable"}
_TYPES |= {8: "prohibit", 9: "throw"}
_ACTIONS = {2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_UP, _LOOPBACK, _CLONED, _PROXY = 0x1, 0x8, 0x200, 0x08
_PERMANENT, _NOARP = 0x80, 0x40
_NO_PREFIX_LENGTH = b"\xff" * 4
_ROUTE_METRIC = {4: 0, 6: 1024}
"""Of a route that says none."""
_ROUTE_PARTS = {2: "from", 3: "iif", 7: "src", 8: "metrics", 9: "nexthops", 11: "flow", 16: "mark", 18: "via-family"}
_ROUTE_PARTS |= {19: "as", 21: "encap-type", 22: "encap", 23: "expires", 26: "ttl-propagate", 30: "nhid"}
_RULE_PARTS = {1: "to", 2: "from", 3: "iif", 4: "goto", 11: "realms", 12: "tunnel", 16: "fwmask", 17: "oif"}
_RULE_PARTS |= {13: "suppress-group", 14: "suppress-prefix-length", 20: "uid-range", 22: "protocol", 23: "sport"}
_RULE_PARTS |= {19: "l3mdev", 24: "dport", 25: "dscp"}


_OF_LOOPBACK = {
    *map(ip_network, ("127.0.0.0/8", "127.0.0.1/32", "127.0.0.0/32", "127.255.255.255/32", "::1/128")),
}
_MULTICAST = ip_network("ff00::/8")
_BROADCAST = ip_address("255.255.255.255")

_Interface = IPv4Interface | IPv6Interface
_Network = IPv4Network | IPv6Network
_Words = Iterator[str]


class NetworkError(ValueError):
    """A file of a firewall's network has a line of another kind; says which."""


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One thing that is set, as both a batch and the kernel come to say it."""

    kind: str
    """``address``, ``route``, ``rule``, ``neighbour`` or ``link``."""
    family: int
    """4 or 6; 0 for a link."""
    what: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join((self.kind, *(each for each in self.what if each)))


KERNEL_RULES = frozenset(
    Entry("rule", family, ("", table, str(priority)))
    for family, table, priority in (
        *((4, "local", 0), (4, "main", 32766), (4, "default", 32767)),
        *((6, "local", 0), (6, "main", 32766)),
    )
)
"""That a kernel begins with, and no file says."""


def wanted(files: Path) -> dict[Entry, tuple[int, str]]:
    """Return what a firewall's files set, with the family of its batch, and its line there.

    Raises:
        NetworkError: A batch has a line of another kind.
        OSError: One cannot be read.

    """
    found: dict[Entry, tuple[int, str]] = {}
    for family, name in BATCHES.items():
        for number, line in enumerate((files / name).read_text(encoding="utf-8").splitlines(), start=1):
            words = line.split()
            if words and not words[0].startswith("#"):
                try:
                    found[_of_batch(words, family)] = (family, line)
                except (IndexError, ValueError, KeyError) as wrong:
                    raise NetworkError(f"{files / name}:{number}: no line of a firewall's network: {line}") from wrong
    return found


def differences(files: Path, devices: Iterable[str]) -> tuple[set[Entry], set[Entry]]:
    """Return what the kernel of this thread's network namespace lacks of a firewall's files, and has beyond them.

    Raises:
        MalformedError, OSError: The kernel does not tell, or a file cannot be read.
        NetworkError: See :func:`wanted`.

    """
    expected, found = set(wanted(files)) | KERNEL_RULES, present(devices)
    return expected - found, found - expected


def _of_batch(words: list[str], family: int) -> Entry:
    """Return what a line of a batch sets; see :mod:`netpolicy.host.network`."""
    options = dict(zip(words[3::2], words[4::2], strict=False))
    if words[:2] == ["address", "replace"]:
        value = ip_interface(words[2])
        return Entry("address", value.version, (str(value), options["dev"]))
    if words[:2] == ["link", "set"] and words[2] == "dev" and words[4] == "mtu" and words[6:] == ["up"]:
        return Entry("link", 0, (words[3], words[5]))
    if words[:2] == ["neighbour", "replace"]:
        address = ip_address(words[2])
        return Entry("neighbour", address.version, (str(address), options["lladdr"].lower(), options["dev"]))
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


@dataclass(frozen=True, slots=True)
class _Device:
    name: str
    up: bool
    loopback: bool
    mtu: int


_NOWHERE = _Device("-", up=False, loopback=False, mtu=0)


def present(devices: Iterable[str]) -> set[Entry]:
    """Return what the kernel of this thread's network namespace has, but for what it makes itself.

    Args:
        devices: The firewall's interfaces, whose being up is compared; all else is of every device.

    Raises:
        MalformedError, OSError: The kernel does not tell.

    """
    for again in range(_TRIES):
        try:
            with Netlink(NETLINK_ROUTE) as kernel:
                return set(_present(kernel, frozenset(devices)))
        except ChangedError:
            if again == _TRIES - 1:
                raise
    raise AssertionError


def _present(kernel: Netlink, own: frozenset[str]) -> Iterator[Entry]:
    known = dict(_devices(kernel))
    for each in known.values():
        if each.up and each.name in own:
            yield Entry("link", 0, (each.name, str(each.mtu)))
    addresses = list(_addresses(kernel, known))
    for device, value, more in addresses:
        # The loopback device has these two from its beginning; they are nobody's.
        if not (device.loopback and str(value) in {"127.0.0.1/8", "::1/128"} and not more):
            yield Entry("address", value.version, (str(value), device.name, *more))
    yield from _routes(kernel, known, [(device.name, value) for device, value, _ in addresses])
    yield from _rules(kernel)
    yield from _neighbours(kernel, known)


def _devices(kernel: Netlink) -> Iterator[tuple[int, _Device]]:
    for _, body in kernel.ask(_GET_LINK, DUMP, bytes(_LINK.size)):
        _, _, _, index, flags, _ = _LINK.unpack_from(body)
        parts = dict(attributes(body[_LINK.size :]))
        yield index, _Device(text(parts[3]), bool(flags & _UP), bool(flags & _LOOPBACK), _number(parts[4]))


def _addresses(kernel: Netlink, known: Mapping[int, _Device]) -> Iterator[tuple[_Device, _Interface, tuple[str, ...]]]:
    for _, body in kernel.ask(_GET_ADDRESS, DUMP, bytes(_ADDRESS.size)):
        family, length, _, _, index = _ADDRESS.unpack_from(body)
        if family in _FAMILIES:
            parts = dict(attributes(body[_ADDRESS.size :]))
            peer = parts.get(1)
            local = parts.get(2, peer)
            value = ip_interface(f"{ip_address(local or b'')}/{length}")
            more = ("peer", str(ip_address(peer))) if peer is not None and peer != local else ()
            yield known[index], value, more


def _routes(
    kernel: Netlink, known: Mapping[int, _Device], addresses: Iterable[tuple[str, _Interface]]
) -> Iterator[Entry]:
    """Yield the routes of all tables and families, but for those that an address brings along."""
    addresses = list(addresses)
    for _, body in kernel.ask(_GET_ROUTE, DUMP, bytes(_ROUTE.size)):
        family, length, source_length, service, table, _, _, kind, flags = _ROUTE.unpack_from(body)
        parts = dict(attributes(body[_ROUTE.size :]))
        if flags & _CLONED:
            continue
        if family not in _FAMILIES:
            yield Entry("route", 0, (f"of protocol family {family}",))
            continue
        version = _FAMILIES[family]
        target = ip_network((parts.get(1) or bytes(4 if version == 4 else 16), length))
        device = known[_number(parts[4])] if 4 in parts else _NOWHERE
        via = str(ip_address(parts[5])) if 5 in parts else "-"
        place = _table(_number(parts.get(15, bytes((table,)))))
        name = _TYPES.get(kind, f"type-{kind}")
        source = parts.pop(7, None)  # only which address the firewall's own packets would have
        more = [*_more(parts, _ROUTE_PARTS, {1, 4, 5, 6, 12, 15}, {8: b""})]
        if service or source_length:
            more += ["tos", str(service), "from-length", str(source_length)]
        metric = _number(parts.get(6, b""))
        made = via == "-" and not more and _follows(name, target, device, place, addresses)
        if metric != _ROUTE_METRIC[version]:
            more += ["metric", str(metric)]
        if source is not None:
            more += ["src", str(ip_address(source))]
        if not made:
            yield Entry("route", version, (name, str(target), via, device.name, place, *more))


def _follows(name: str, target: _Network, device: _Device, table: str, addresses: list[tuple[str, _Interface]]) -> bool:
    """Tell whether a route is what a kernel makes of the addresses of a device, or of nothing."""
    if name == "unreachable":  # IPv6 begins with it
        return device.loopback and not target.prefixlen
    if device.loopback and target in _OF_LOOPBACK:
        return True
    if target == _MULTICAST:
        return table == "local"
    own = [each for where, each in addresses if where == device.name and each.version == target.version]
    if name == "unicast":
        return table == "main" and target in {each.network for each in own}
    single = target.network_address if target.num_addresses == 1 else None
    ends = {each.network.network_address for each in own}
    return table == "local" and {
        "local": single in {each.ip for each in own},
        "broadcast": single in ends | {each.network.broadcast_address for each in own},
        "anycast": single in ends,
    }.get(name, False)


def _rules(kernel: Netlink) -> Iterator[Entry]:
    for _, body in kernel.ask(_GET_RULE, DUMP, bytes(_RULE.size)):
        family, _, _, service, table, _, _, action, flags = _RULE.unpack_from(body)
        if family not in _FAMILIES:  # of routes for multicast, of which each is told by itself
            continue
        parts = dict(attributes(body[_RULE.size :]))
        plain = {14: _NO_PREFIX_LENGTH, 16: b"\xff" * 4, 19: b"\0"}
        more = [*_more(parts, _RULE_PARTS, {6, 10, 15, 21}, plain)]
        more += ["tos", str(service)] * bool(service) + ["not"] * bool(flags & 2)
        more += [_ACTIONS.get(action, f"action-{action}")] * (action != 1)
        mark = _number(parts.get(10, b""))
        where = _table(_number(parts.get(15, bytes((table,)))))
        yield Entry(
            "rule", _FAMILIES[family], (f"{mark:#x}" if mark else "", where, str(_number(parts.get(6, b""))), *more)
        )


def _neighbours(kernel: Netlink, known: Mapping[int, _Device]) -> Iterator[Entry]:
    """Yield neighbours that stay, and those whom the firewall answers for; what it has learned passes."""
    for proxy in (0, _PROXY):
        asked = _NEIGHBOUR.pack(0, 0, 0, 0, 0, proxy, 0)
        for _, body in kernel.ask(_GET_NEIGHBOUR, DUMP, asked):
            family, _, _, index, state, flags, _ = _NEIGHBOUR.unpack_from(body)
            parts = dict(attributes(body[_NEIGHBOUR.size :]))
            if family not in _FAMILIES or 1 not in parts:
                continue
            address, device = ip_address(parts[1]), known.get(index, _NOWHERE)
            if flags & _PROXY:
                yield Entry("neighbour", address.version, (str(address), "proxy", device.name))
            elif state & _PERMANENT or (state & _NOARP and not _of_all(address, device)):
                yield Entry("neighbour", address.version, (str(address), parts.get(2, b"").hex(":"), device.name))


def _of_all(address: IPv4Address | IPv6Address, device: _Device) -> bool:
    """Tell whether an address needs nobody to be asked for it."""
    return device.loopback or address.is_multicast or address == _BROADCAST


def _more(parts: Mapping[int, bytes], names: Mapping[int, str], known: set[int], plain: Mapping[int, bytes]) -> _Words:
    """Yield attributes that a firewall's own files never set, unless they say nothing."""
    for at, value in sorted(parts.items()):
        if at not in known and value != plain.get(at) and (value.strip(b"\0") or at in names):
            yield from (names.get(at, f"attribute-{at}"), value.hex())


def _table(number: int) -> str:
    return _TABLES.get(number, str(number))


def _number(value: bytes) -> int:
    """Return a number in this machine's order of bytes, as rtnetlink has them."""
    return int.from_bytes(value, sys.byteorder)
