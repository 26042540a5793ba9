"""Witnesses: the same ones every time, at every edge, and at every rule that a packet can come to."""

from __future__ import annotations

from pathlib import Path

import pytest

from netpolicy.build import compile_topology
from netpolicy.proof import fields
from netpolicy.proof.evaluate import Packet, evaluate
from netpolicy.proof.fields import STATES, Family, State
from netpolicy.proof.model import Ruleset
from netpolicy.proof.paths import WAYS
from netpolicy.proof.reach import unlimited
from netpolicy.proof.read import read_rulesets
from netpolicy.proof.witness import witnesses
from tests.lab.small import PORT, small_topology

_INTERFACES = ("lan", "wan")
_ALPHA, _GAMMA = 0x0A4D010A, 0x0A4D030A


@pytest.fixture(scope="module", name="ruleset")
def _ruleset(tmp_path_factory: pytest.TempPathFactory) -> Ruleset:
    out = tmp_path_factory.mktemp("witness") / "build"
    compile_topology(small_topology("witness"), out)
    (ruleset,) = read_rulesets([[Path(out / "edge" / name) for name in ("guard.nft", "nftables.nft")]])
    return ruleset


@pytest.fixture(scope="module", name="packets")
def _packets(ruleset: Ruleset) -> list[Packet]:
    return list(witnesses(ruleset, Family.IPV4, _INTERFACES))


def test_the_same_ruleset_gives_the_same_packets(ruleset: Ruleset, packets: list[Packet]) -> None:
    """Once more, the same packets come in the same order, each once."""
    assert list(witnesses(ruleset, Family.IPV4, _INTERFACES)) == packets
    assert len({frozenset(each.values.items()) for each in packets}) == len(packets)


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {fields.SADDR: _ALPHA - 1},
        {fields.SADDR: _ALPHA + 1},
        {fields.DADDR: _GAMMA - 1},
        {fields.DADDR: _GAMMA + 1},
        {fields.DPORT: PORT - 1},
        {fields.DPORT: PORT + 1},
        {fields.PROTOCOL: fields.UDP, fields.TCP_FLAGS: 0},
        {fields.PROTOCOL: fields.ICMP, fields.TCP_FLAGS: 0},
        {fields.IIF: "wan"},
        {fields.TCP_FLAGS: fields.SYN | fields.ACK},
        {fields.STATE: STATES.index(State.INVALID)},
        {fields.STATE: STATES.index(State.ESTABLISHED)},
        {fields.TTL: 0},
        {fields.TTL: 1},
        {fields.TTL: 2},
        {fields.FRAG_OFF: 0x2000},
        {fields.FRAG_OFF: 0x0001},
        {fields.HEADER_LENGTH: 6},
    ],
    ids=lambda each: " ".join(f"{field.name}={value}" for field, value in each.items()) or "itself",
)
def test_every_edge_of_a_permit_is_there(packets: list[Packet], wanted: dict[fields.Field, int | str]) -> None:
    """One field of what is permitted lies beside it, and all others are as they must be."""
    permitted: dict[fields.Field, int | str] = {
        fields.IIF: "lan",
        fields.SADDR: _ALPHA,
        fields.DADDR: _GAMMA,
        fields.DPORT: PORT,
        fields.PROTOCOL: fields.TCP,
        fields.TCP_FLAGS: fields.SYN,
        fields.STATE: STATES.index(State.NEW),
        fields.TTL: 64,
        fields.FRAG_OFF: 0,
        fields.HEADER_LENGTH: 5,
    }
    values = {**permitted, **wanted}
    assert any(all(each[field] == value for field, value in values.items()) for each in packets)


def test_every_rule_that_can_match_does(ruleset: Ruleset) -> None:
    """What no witness meets are limits that are not exceeded, and what nothing can come to."""
    met: set[str] = set()
    for family in Family:
        for packet in witnesses(ruleset, family, _INTERFACES):
            for hooks in WAYS:
                judgement = evaluate(ruleset, hooks, packet, unlimited)
                met.update(str(step.rule) for step in judgement.steps if step.rule is not None)
    missed = [str(rule) for rule in ruleset.rules() if str(rule) not in met and "log prefix" not in rule.text]
    # The guard passes on what the main table has marked; nothing else comes to it while that stands. What the host
    # itself says no sender can bring about, fragments of odd lengths least of all.
    spared = ("inet netpolicy_guard", "inet netpolicy deny_", "inet netpolicy output rule 2: exthdr frag exists")
    limits = (": limit rate over ", ": ct count over ")
    assert [each for each in missed if not each.startswith(spared) and not any(map(each.__contains__, limits))] == []
