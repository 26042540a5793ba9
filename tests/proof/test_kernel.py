"""The model of rulesets is as this kernel is."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from conformance.lab.preflight import LAB, missing
from conformance.modelled.bench import Bench, benches
from conformance.modelled.expressions import INTERFACES, expressions
from conformance.modelled.judge import hold
from conformance.modelled.plan import Plan
from conformance.modelled.replay import Answer, interfaces, replay_folder
from conformance.modelled.rulesets import certain, ruleset
from conformance.modelled.trial import try_rulesets
from netpolicy.proof import fields
from netpolicy.proof.evaluate import Packet
from netpolicy.proof.fields import EXTENSIONS, STATES, Family, Field, State
from netpolicy.proof.terms import RefusedError

_RULESETS, _PACKETS = 60, 50


@pytest.fixture(scope="module", name="bench")
def _bench() -> Iterator[Bench]:
    lacking = [str(each) for each in missing() if each.needed_for == LAB]
    if lacking:
        pytest.skip(f"this machine lacks {'; '.join(lacking)}")
    with benches(Plan(INTERFACES)) as bench:
        yield bench


def _packet(family: Family = Family.IPV4, **changes: int | str) -> Packet:
    ends = ("10.0.0.7", "10.1.2.3") if family is Family.IPV4 else ("2001:db8:100::7", "2001:db8:200::1")
    values: dict[Field, int | str] = {
        fields.IIF: "lan0",
        fields.SADDR: int(ip_address(ends[0])),
        fields.DADDR: int(ip_address(ends[1])),
        fields.PROTOCOL: fields.TCP,
        fields.SPORT: 40000,
        fields.DPORT: 22,
        fields.TCP_FLAGS: fields.SYN,
        fields.TTL: 64,
        fields.STATE: STATES.index(State.NEW),
    }
    return Packet(family, {**values, **{getattr(fields, name): value for name, value in changes.items()}})


def _fragment(**changes: int) -> Packet:
    packet = _packet(Family.IPV6, **changes)
    return packet.changed({EXTENSIONS["frag"]: 1})


def _chain(rules: str, head: str = "type filter hook forward priority 0", family: str = "inet") -> str:
    return f"table {family} t {{\nchain c {{\n{head}\n{rules}\n}}\n}}\n"


_EARLY = "type filter hook prerouting priority -450"
_CASES = {
    "the hop is counted before the forward chains": (_chain("ip ttl 63 counter drop"), [_packet()]),
    "and before those behind": (_chain("ip ttl 63 counter", "type filter hook postrouting priority 0"), [_packet()]),
    "a hop limit of 1 does not come to them": (_chain("counter"), [_packet(TTL=1), _packet(TTL=2)]),
    "icmp type without a check of the family": (
        _chain("meta l4proto icmp icmp type 8 counter\nicmp type 8 counter"),
        [_packet(f, PROTOCOL=1, SPORT=0x800) for f in Family],
    ),
    "a protocol that nft does not print": (
        _chain("meta l4proto icmp th sport < 1024 counter"),
        [_packet(SPORT=22), _packet(PROTOCOL=1, SPORT=22)],
    ),
    "a next header that nft does not print": (
        _chain("ip6 nexthdr tcp tcp dport 22 counter", family="ip6"),
        [_packet(Family.IPV6), _packet(Family.IPV6).changed({EXTENSIONS["dst"]: 1})],
    ),
    "ports of later fragments": (
        _chain("tcp dport 22 counter\ntcp dport != 22 counter", _EARLY),
        [_packet(FRAG_OFF=0x2001), _packet(FRAG_OFF=1), _fragment(LATER_FRAGMENT=1, DPORT=22)],
    ),
    "fragments are held where anything tracks": (
        _chain("ct state new counter") + _chain("counter", _EARLY).replace("table inet t", "table inet u"),
        [_packet(FRAG_OFF=0x2000), _packet(FRAG_OFF=1), _fragment(MORE_FRAGMENTS=1), _fragment(LATER_FRAGMENT=1)],
    ),
    "but only in the family that is tracked": (
        _chain("ct state new counter", family="ip"),
        [_packet(FRAG_OFF=0x2000), _fragment(MORE_FRAGMENTS=1)],
    ),
    "a fragment that is whole loses its header, an odd one passes": (
        _chain("ct state new exthdr frag exists counter\nct state new exthdr frag missing counter"),
        [_fragment(), _fragment(MORE_FRAGMENTS=1, ODD_FRAGMENT=1)],
    ),
    "what cannot be counted is dropped, without a verdict too": (
        _chain("ct count over 60000 counter\ncounter"),
        [_fragment(LATER_FRAGMENT=1, MORE_FRAGMENTS=1, ODD_FRAGMENT=1), _packet(Family.IPV6)],
    ),
    "a mark that cannot be read ends the rule": (
        _chain("ct mark set ct mark | 1 counter\nct mark set 1 counter"),
        [_packet(STATE=STATES.index(State.INVALID)), _packet()],
    ),
    "a packet with a socket is transparent to later chains": (
        _chain("meta l4proto tcp tproxy ip to :3128 counter", "type filter hook prerouting priority -150")
        + _chain("socket transparent 1 counter", "type filter hook input priority 0").replace("t {", "u {", 1),
        [_packet(DADDR=0x0A040001)],
    ),
    "the youngest chain of a priority is first": (
        _chain("meta mark 2 counter\nmeta mark set 1")
        + _chain("meta mark 1 counter\nmeta mark set 2").replace("t {", "u {", 1),
        [_packet()],
    ),
}


@pytest.mark.parametrize("case", _CASES)
def test_case(bench: Bench, case: str) -> None:
    """What the model claims of the kernel beside the rules is so."""
    text, packets = _CASES[case]
    result = hold(bench, bench.load(text), packets, certain)
    assert (result.disagreements, result.unsendable) == ([], 0)
    assert result.sent == len(packets)


@pytest.mark.parametrize(
    ("rules", "head", "what"),
    [
        ("icmp code >= 1 icmp type <= 4", "type filter hook forward priority 0", "two comparisons"),
        ("socket transparent 0", "type filter hook input priority 0", "socket transparent 0"),
        ("ct state new", "type filter hook prerouting priority -200", "priority -200"),
        ("ct zone set 1", "type filter hook prerouting priority 0", "ct zone set"),
        ("ct state new ct zone set 1", "type filter hook prerouting priority -300", "ct where a zone is set"),
    ],
)
def test_refuses(bench: Bench, rules: str, head: str, what: str) -> None:
    """What nft misprints, and what depends on the order of registration, is refused by name."""
    with pytest.raises(RefusedError, match=what):
        bench.load(_chain(rules, head))


def test_random_rulesets(bench: Bench) -> None:  # noqa: ARG001 - it is asked for its skip
    """Random rulesets of every expression do to every packet what the model says."""
    found = try_rulesets(range(_RULESETS), _PACKETS)
    assert [str(each) for _, each in found.disagreements] == []
    assert not found.unloaded
    assert found.rulesets > _RULESETS * 0.75  # the others nft itself misprints
    assert found.tally.sent > _RULESETS * _PACKETS
    used = set(found.tally.rulesets)
    assert [each.name for each in expressions() if each.name not in used] == []


def test_same_seed_same_ruleset() -> None:
    """A seed stands for one ruleset."""
    assert ruleset(7) == ruleset(7) != ruleset(8)


def test_replay(bench: Bench, tmp_path: Path) -> None:  # noqa: ARG001 - it is asked for its skip
    """Files are held against the kernel, or refused by name."""
    (tmp_path / "good.nft").write_text(_chain('iifname "eth*" tcp dport 22 limit rate 5/second accept\ndrop'))
    (tmp_path / "nat.nft").write_text(_chain("masquerade", "type nat hook postrouting priority 100"))
    (tmp_path / "torn.nft").write_text("table inet t {")
    (tmp_path / "taking.nft").write_text('table inet t { }\ninclude "/etc/*.conf"\n')
    good, nat, taking, torn = replay_folder(tmp_path)
    assert (taking.answer, taking.reason) == (Answer.REFUSED, "include")
    assert (good.answer, good.disagreements) == (Answer.AGREES, ())
    assert good.rules_matched == 2
    assert (nat.answer, nat.reason) == (Answer.REFUSED, "type nat")
    assert torn.answer is Answer.UNLOADED


def test_names_of_interfaces() -> None:
    """Names are found in definitions, sets and comparisons."""
    text = 'define lan = { eth0, "eth1" }\niifname $lan oif != "wan*" accept\niifname @known drop'
    assert interfaces(text) == ["eth0", "eth1", "wan*"]
