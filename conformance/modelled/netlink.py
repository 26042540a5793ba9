"""What a kernel's netfilter is asked and told for one batch: counters of all rules, and connections."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from conformance.lab.nfnetlink import NetfilterSocket, attribute, attributes
from conformance.modelled.tracking import Connection
from netpolicy.proof.fields import ICMP, ICMPV6, TCP, Family
from netpolicy.proof.model import ChainId

# linux/netfilter/nf_tables.h and nfnetlink_conntrack.h.
_GET_CHAIN, _GET_RULE, _NEW_CONNECTION = 10 << 8 | 4, 10 << 8 | 7, 1 << 8 | 0
_NF_TABLES, _NEW_RULE, _RULE_POSITION = 10, 10 << 8 | 6, 6
_ADD, _APPEND = 0x400, 0x800
_DUMP, _CREATE = 0x300, 0x4 | 0x200 | 0x400
_CHAIN_TABLE, _CHAIN_NAME = 1, 3
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS = 1, 2, 3, 4
_EXPRESSION_NAME, _EXPRESSION_DATA, _COUNTER_PACKETS = 1, 2, 2
_COUNTER, _VERDICTS = b"counter\0", {b"immediate\0", b"reject\0"}
_FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}
_ADDRESS_FAMILY = {Family.IPV4: 2, Family.IPV6: 10}
_ORIGINAL, _REPLY, _STATUS, _PROTOCOL_INFO, _TIMEOUT, _MARK, _ZONE = 1, 2, 3, 4, 7, 8, 18
_SEEN_REPLY, _ASSURED, _CONFIRMED = 1 << 1, 1 << 2, 1 << 3
_ESTABLISHED = 3
_BE_LIBERAL = 0x08
_NESTED = 0x8000
_LIFE = 600
"""Seconds."""
_ANSWERS = {8: 0, 13: 14, 15: 16, 17: 18, 128: 129, 139: 140}

RuleCounters = dict[ChainId, list[tuple[int, list[int]]]]
"""By chain, in order: the handle of each rule, and the packets of each counter in it."""


def chains(source: NetfilterSocket) -> list[ChainId]:
    """Return all chains.

    Raises:
        OSError: The kernel's answer is an error, or does not come.

    """
    found = []
    for family, body in source.request(_GET_CHAIN, _DUMP, 0, b""):
        parts = dict(attributes(body))
        if family in _FAMILIES:
            found.append(ChainId(_FAMILIES[family], _string(parts[_CHAIN_TABLE]), _string(parts[_CHAIN_NAME])))
    return found


def put_counters(target: NetfilterSocket) -> None:
    """Put a counter before each rule and at the end of each chain.

    Raises:
        OSError: The kernel refuses.

    """
    numbers = {name: number for number, name in _FAMILIES.items()}
    expression = attribute(_EXPRESSION_NAME, _COUNTER) + attribute(_EXPRESSION_DATA | _NESTED, b"")
    counter = attribute(_RULE_EXPRESSIONS | _NESTED, attribute(1 | _NESTED, expression))
    known = _rules(target)
    messages = []
    for chain in chains(target):
        place = attribute(_RULE_TABLE, chain.table.encode() + b"\0") + attribute(
            _RULE_CHAIN, chain.name.encode() + b"\0"
        )
        for handle, _ in known.get(chain, ()):
            before = attribute(_RULE_POSITION, struct.pack("!Q", handle))
            messages.append((_NEW_RULE, _ADD, numbers[chain.family], place + counter + before))
        messages.append((_NEW_RULE, _ADD | _APPEND, numbers[chain.family], place + counter))
    target.transact(_NF_TABLES, messages)


def rule_counters(source: NetfilterSocket) -> RuleCounters:
    """Return the counters that stand in rules.

    Raises:
        OSError: The kernel's answer is an error, or does not come.

    """
    return {
        chain: [(handle, [_packets(data) for name, data in known if name == _COUNTER]) for handle, known in rules]
        for chain, rules in _rules(source).items()
    }


def counted(source: NetfilterSocket) -> frozenset[tuple[ChainId, int]]:
    """Return the rules, by chain and number, whose last expression before the verdict is a counter.

    Raises:
        OSError: The kernel's answer is an error, or does not come.

    """
    found = set()
    for chain, rules in _rules(source).items():
        for number, (_, known) in enumerate(rules, start=1):
            names = [name for name, _ in known]
            while names and names[-1] in _VERDICTS:
                names.pop()
            if names and names[-1] == _COUNTER:
                found.add((chain, number))
    return frozenset(found)


def _rules(source: NetfilterSocket) -> dict[ChainId, list[tuple[int, list[tuple[bytes, bytes]]]]]:
    """Return by chain, in order, the handle of each rule, and the names and contents of its expressions."""
    found: dict[ChainId, list[tuple[int, list[tuple[bytes, bytes]]]]] = {}
    for family, body in source.request(_GET_RULE, _DUMP, 0, b""):
        if family not in _FAMILIES:
            continue
        parts = dict(attributes(body))
        chain = ChainId(_FAMILIES[family], _string(parts[_RULE_TABLE]), _string(parts[_RULE_CHAIN]))
        (handle,) = struct.unpack("!Q", parts[_RULE_HANDLE])
        found.setdefault(chain, []).append((handle, list(_expressions(parts.get(_RULE_EXPRESSIONS, b"")))))
    return found


def _expressions(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    for _, expression in attributes(content):
        parts = dict(attributes(expression))
        yield parts[_EXPRESSION_NAME], parts.get(_EXPRESSION_DATA, b"")


def _packets(counter: bytes) -> int:
    (packets,) = struct.unpack("!Q", dict(attributes(counter))[_COUNTER_PACKETS])
    return int(packets)


def _string(value: bytes) -> str:
    return value.rstrip(b"\0").decode()


def connect(target: NetfilterSocket, connections: Iterable[tuple[Connection, int]]) -> None:
    """Make entries, each with its zone, as if an answer had been seen.

    Raises:
        OSError: The kernel refuses one.

    """
    for each, zone in connections:
        for _ in target.request(_NEW_CONNECTION, _CREATE, _ADDRESS_FAMILY[each.family], _entry(each, zone)):
            pass


def _entry(of: Connection, zone: int) -> bytes:
    parts = [
        attribute(_ORIGINAL | _NESTED, _tuple(of, reverse=False)),
        attribute(_REPLY | _NESTED, _tuple(of, reverse=True)),
        attribute(_STATUS, struct.pack("!I", _SEEN_REPLY | _ASSURED | _CONFIRMED)),
        attribute(_TIMEOUT, struct.pack("!I", _LIFE)),
        attribute(_MARK, struct.pack("!I", of.mark)),
    ]
    if of.protocol == TCP:
        liberal = bytes((_BE_LIBERAL, _BE_LIBERAL))
        tcp = attribute(1, bytes((_ESTABLISHED,))) + attribute(4, liberal) + attribute(5, liberal)
        parts.append(attribute(_PROTOCOL_INFO | _NESTED, attribute(1 | _NESTED, tcp)))
    if zone:
        parts.append(attribute(_ZONE, struct.pack("!H", zone)))
    return b"".join(parts)


def _tuple(of: Connection, *, reverse: bool) -> bytes:
    ends = [of.source, of.destination]
    ports = [of.source_port, of.port]
    if reverse:
        ends.reverse()
    first = 1 if of.family is Family.IPV4 else 3
    packed = [each.to_bytes(of.family.bits // 8, "big") for each in ends]
    addresses = attribute(first, packed[0]) + attribute(first + 1, packed[1])
    protocol = attribute(1, bytes((of.protocol,)))
    if of.protocol in {ICMP, ICMPV6}:
        kind, code = ports
        base = 4 if of.protocol == ICMP else 7
        kind = _ANSWERS[kind] if reverse else kind
        protocol += attribute(base, struct.pack("!H", of.identity))
        protocol += attribute(base + 1, bytes((kind,))) + attribute(base + 2, bytes((code,)))
    else:
        if reverse:
            ports.reverse()
        protocol += attribute(2, struct.pack("!H", ports[0])) + attribute(3, struct.pack("!H", ports[1]))
    return attribute(1 | _NESTED, addresses) + attribute(2 | _NESTED, protocol)
