"""What changes the meaning of a ruleset without being a rule: the kernel lets packets pass, and the proof says so."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from netpolicy.proof.checks import checks
from netpolicy.proof.held import decode
from netpolicy.proof.netlink import MalformedError, attribute, attributes
from netpolicy.proof.prove import prove
from netpolicy.proof.terms import RefusedError
from netpolicy.topology.model import Assurance, Topology
from tests.lab.small import small_topology
from tests.proof.wires import PROBES, wires

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="rulesets are loaded as root")

Edit = Callable[[str], str]
_WHERE = "ip saddr 10.77.1.10 ip daddr 10.77.3.10 tcp dport 17001"
_TABLE = "table inet netpolicy {\n"


@pytest.fixture(name="topology")
def _topology() -> Topology:
    return small_topology("beside", Assurance.INSPECT)


def _dormant(text: str) -> str:
    return re.sub(r"(table inet \w+ \{\n)", r"\1\tflags dormant;\n", text)


def _hidden(comparison: str, declared: str = "", between: str = "goto deny_no_flow") -> Edit:
    """Return an edit that refuses a port as far as one sees, and then accepts it by a rule that is called needless."""

    def edit(text: str) -> str:
        accept = f'{_WHERE} meta mark set 0x4e000000 accept comment "shortcut"'
        head = "type filter hook forward priority 0; policy drop;\n"
        assert head in text
        text = text.replace(head, f"{head}\t\t{_WHERE} {comparison} {between}\n\t\t{accept}\n")
        return text.replace(_TABLE, f"{_TABLE}\t{declared}\n", 1)

    return edit


_EVERY = "set every { type inet_proto; flags interval; %s elements = { 0-255 %s } }"
PASSES: dict[str, tuple[Edit, bool, str]] = {
    "dormant tables": (_dormant, True, "flags dormant"),
    "limit of a set": (
        _hidden("meta l4proto @every", _EVERY % ("limit rate over 1000000/second;", "")),
        False,
        "limit of a",
    ),
    "quota of a set": (_hidden("meta l4proto @every", _EVERY % ("quota over 900 mbytes;", "")), False, "quota of a"),
    "ct count of a set": (
        _hidden("meta l4proto @every", "set every { type inet_proto; ct count over 60000; elements = { 6 } }"),
        False,
        "ct count of an element",
    ),
    "an element that has expired": (
        _hidden("meta l4proto @every", "set every { type inet_proto; timeout 1ms; elements = { 6 } }"),
        False,
        "timeout",
    ),
    "a counter from a map": (
        _hidden("counter name ip saddr map @counters", "map counters { type ipv4_addr : counter; }"),
        False,
        "from a map",
    ),
}
"""Edits of the edge's rules with which forbidden segments pass; whether of its guard too; and what is refused."""


@pytest.mark.parametrize("name", PASSES)
def test_passes_and_is_refused(topology: Topology, build: Path, name: str) -> None:
    """With each edit the kernel passes all of twenty forbidden segments, and nothing is proven of it, by name."""
    edit, guard, what = PASSES[name]
    for file in ("guard.nft", "nftables.nft") if guard else ("nftables.nft",):
        path = build / "edge" / file
        path.write_text(edit(path.read_text(encoding="utf-8")), encoding="utf-8")
    with wires(topology, build) as wired:
        assert wired.forbidden(17001) == PROBES
    with pytest.raises(RefusedError, match=what):
        prove(topology, build)


def test_stops(topology: Topology, build: Path) -> None:
    """As compiled none of the twenty passes."""
    with wires(topology, build) as wired:
        assert wired.forbidden(17001) == 0


def _within(inside: str) -> Edit:
    return lambda text: text.replace(_TABLE, f"{_TABLE}\t{inside}\n", 1)


def _after(more: str) -> Edit:
    return lambda text: f"{text}\n{more}\n"


def _table(family: str, name: str, inside: str) -> str:
    head = f"table {family} {name}"
    return f"{head}\ndelete {head}\n{head} {{ {inside} }}"


REFUSED: dict[str, tuple[str, Edit, str]] = {
    "the guard sleeps": ("guard.nft", _dormant, "table inet netpolicy_guard.*flags dormant"),
    "no guard": (
        "guard.nft",
        lambda text: text.replace("netpolicy_guard", "another"),
        "without table inet netpolicy_g",
    ),
    "a bridge's table": ("nftables.nft", _after(_table("bridge", "x", "")), "table bridge x.*family bridge"),
    "a table of ARP": ("nftables.nft", _after(_table("arp", "x", "")), "table arp x.*family arp"),
    "a device's table": ("nftables.nft", _after(_table("netdev", "x", "")), "table netdev x.*family netdev"),
    "a device's chain": (
        "nftables.nft",
        _within('chain early { type filter hook ingress device "lo" priority 0; policy accept; }'),
        "inet netpolicy early.*hook ingress",
    ),
    "translation": (
        "nftables.nft",
        _within("chain turned { type nat hook prerouting priority -100; policy accept; }"),
        "type nat",
    ),
    "a helper": (
        "nftables.nft",
        _within('ct helper x { type "ftp" protocol tcp; l3proto ip; }'),
        "inet netpolicy x.*ct helper",
    ),
    "a timeout": (
        "nftables.nft",
        _within("ct timeout x { protocol tcp; l3proto ip; policy = { established : 1 }; }"),
        "ct timeout",
    ),
    "an expectation": (
        "nftables.nft",
        _within("ct expectation x { protocol tcp; dport 80; timeout 1h; size 9; l3proto ip; }"),
        "ct expectation",
    ),
    "a proxy of SYN": ("nftables.nft", _within("synproxy x { mss 1460; wscale 7; timestamp sack-perm; }"), "synproxy"),
    "include": ("nftables.nft", _after('include "/dev/null"'), r"nftables\.nft:\d+:1: 'include'"),
    "include beside frames": ("frames.nft", _after('include "/dev/null"'), r"frames\.nft:\d+:1: 'include'"),
    "a variable among frames": (
        "frames.nft",
        lambda text: text.replace("priority -500", "priority $x", 1),
        r"frames\.nft:\d+:\d+: '\$x'",
    ),
    "include in a table": ("nftables.nft", _within('include "/tmp/*.nft"'), r"nftables\.nft:\d+:2: 'include'"),
    "define": ("nftables.nft", _after("define x = 1"), "'define'"),
    "a variable": ("nftables.nft", _within("set s { type mark; elements = { $x } }"), r"'\$x'"),
    "a rule after its table": (
        "nftables.nft",
        _after("insert rule inet netpolicy forward accept"),
        r"nftables\.nft:\d+:1: 'insert'; expected 'table FAMILY NAME'",
    ),
    "flush": ("nftables.nft", _after("flush chain inet netpolicy forward"), "'flush'"),
    "another's table deleted": ("nftables.nft", _after("delete table inet netpolicy_guard"), "'delete'"),
    "a table that stays": (
        "nftables.nft",
        lambda text: text.replace("delete table inet netpolicy\n", ""),
        ":6:1: 'table'",
    ),
    "commands in one line": ("nftables.nft", _after("list ruleset; monitor"), "'list'"),
    "a line that goes on": ("nftables.nft", _within("# x \\\n\t\\\n"), r":9:2: '\\'"),
    "a line in a comment": ("nftables.nft", _within('set s { type mark; comment "a\nb"; }'), "quotation mark"),
    "an escape in a comment": ("nftables.nft", _within('set s { type mark; comment "\x1b[2K"; }'), r"'\\x1b'"),
    "a comment that turns": ("nftables.nft", _within("# \u202e accept"), r"'\\u202e'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(topology: Topology, build: Path, name: str) -> None:
    """What is no rule and has no meaning for the proof is refused by its name, with its place."""
    file, edit, what = REFUSED[name]
    path = build / "edge" / file
    before = path.read_text(encoding="utf-8")
    after = edit(before)
    assert after != before
    path.write_text(after, encoding="utf-8")
    with pytest.raises(RefusedError) as refused:
        prove(topology, build)
    assert re.search(what, str(refused.value)), refused.value


def test_no_comment_excuses(topology: Topology, build: Path) -> None:
    """A rule that no packet needs is found, whatever is written beside it; a shortcut is known without a word."""
    path = build / "edge" / "nftables.nft"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(' comment "shortcut"', ""), encoding="utf-8")
    assert prove(topology, build).holds
    head = "type filter hook forward priority 0; policy drop;\n"
    dead = f"{head}\t\tip daddr 192.0.2.1 goto deny_no_flow\n\t\tip daddr 192.0.2.1 accept"
    path.write_text(text.replace(head, f'{dead} comment "shortcut"\n'), encoding="utf-8")
    found = [each for theorem in prove(topology, build).theorems for each in theorem.findings if theorem.id == "live"]
    assert any("192.0.2.1 accept" in str(each.rule) for each in found)


HOSTILE = (
    "x\ninet netpolicy forward 9\n  [ meta load l4proto => reg 1 ]\n  [ cmp eq reg 1 0x00000006 ]\n",
    "\x1b[2K\rinet t c 3",
    'x" accept # handle 2',
    "}\n\tchain c {\n\t\taccept # handle 3\n",
)


@pytest.mark.parametrize("comment", HOSTILE)
def test_comments_make_no_checks(comment: str) -> None:
    """Whatever stands in a comment, instructions are the same; and a comment of two lines is refused by itself."""

    def told(given: bytes) -> dict[str, list[tuple[int, str]]]:
        user = attribute(7, b"\0" + bytes((len(given) + 1,)) + given + b"\0")
        load = attribute(1, b"meta\0") + attribute(2, attribute(1, struct.pack("!I", 1)) + attribute(2, b"\0\0\0\x10"))
        value = attribute(3, attribute(1, b"\x06"))
        equal = attribute(1, b"cmp\0") + attribute(2, attribute(1, b"\0\0\0\x01") + attribute(2, bytes(4)) + value)
        code = attribute(4, attribute(1, load) + attribute(1, equal))
        rule = attribute(1, b"t\0") + attribute(2, b"c\0") + attribute(3, struct.pack("!Q", 3)) + code + user
        kinds = ("table", "chain", "set", "object", "flowtable", "elements")
        return {**{kind: [] for kind in kinds}, "rule": [(2, rule.hex())]}

    (plain,) = checks(decode(told(b"plain")).rules).values()
    assert plain.protocols == {6}
    with pytest.raises(RefusedError, match="the comment of a rule of ip t c"):
        decode(told(comment.encode()[:128]))


def test_malformed_answers() -> None:
    """An answer whose lengths do not fit is an error, wherever it is cut."""
    whole = attribute(1, b"inet\0") + attribute(2, struct.pack("!I", 1))
    for end in range(1, len(whole)):
        if not 9 <= end <= 12:  # there the first one is whole, with or without what fills it up
            with pytest.raises(MalformedError):
                dict(attributes(whole[:end]))
