"""z3 and the diagrams say the same of what no packet needs, of orders, of engines and of invariants."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from netpolicy.proof.case import Case, prepare
from netpolicy.proof.fields import Family
from netpolicy.proof.judged import Judged, judge, space_for
from netpolicy.proof.model import Ruleset
from netpolicy.proof.read import read_rulesets
from netpolicy.topology.model import Topology
from tests.proof.asking import second_opinion
from tests.proof.faults import DEAD, OPEN, OPENED, UNSEEN, Edit
from tests.proof.random_networks import try_networks
from tests.proof.random_opinions import read_random
from tests.proof.second import Firewall, read_build
from tests.proof.second_theorems import (
    Answers,
    about_engines,
    about_flows,
    about_invariants,
    about_life,
    about_order,
)

EDITED = "tokyo-fw"
NETWORKS = 8


def _read(build: Path, *firewalls: str) -> dict[str, Ruleset]:
    with second_opinion():
        return read_build(build, firewalls)


def _judged(host: str, ruleset: Ruleset) -> Sequence[Judged]:
    return [judge(host, ruleset, space_for(family, [ruleset], ())) for family in Family]


def _agreed(answers: Answers) -> frozenset[str]:
    """Return what contradicts a theorem, by both."""
    assert list(answers.disagreements()) == []
    return answers.by_z3


def test_same_answers(case: Case, firewalls: Mapping[str, Firewall], miniature: Path) -> None:
    """Of what is compiled nothing contradicts a theorem, by both."""
    assert not _agreed(about_invariants(case, firewalls))
    for name, firewall in firewalls.items():
        assert not _agreed(about_engines(firewall, miniature / name))
        assert not _agreed(about_order(firewall.opinions.judged))
    assert not any(_agreed(answers) for answers in about_flows(case, firewalls.values()))


def test_same_life(miniature: Path) -> None:
    """Every rule and every element of the largest firewall is needed, by both; the benchmark takes all of them."""
    assert not _agreed(about_life(_judged(EDITED, _read(miniature, EDITED)[EDITED])))


@pytest.mark.parametrize(("name", "edit"), DEAD, ids=lambda each: getattr(each, "name", ""))
def test_same_dead(miniature: Path, tmp_path: Path, name: str, edit: Edit) -> None:
    """What an edit leaves without a packet is the same by both."""
    shutil.copytree(miniature / name, tmp_path / name)
    edit.apply(tmp_path, name)
    assert bool(_agreed(about_life(_judged(name, _read(tmp_path, name)[name])))) is not edit.holds


def test_same_invariants(case: Case, firewalls: Mapping[str, Firewall], miniature: Path, tmp_path: Path) -> None:
    """Who gets where nobody may is the same by both, and the evaluator lets z3's packets pass on all of their way."""
    for name in OPENED[0]:
        shutil.copytree(miniature / name, tmp_path / name)
        OPEN.apply(tmp_path, name)
    changed = {name: judge(name, each, case.space) for name, each in _read(tmp_path, *OPENED[0]).items()}
    other = replace(case, judged={**case.judged, **changed})
    assert _agreed(about_invariants(other, {**firewalls, **{name: Firewall(other, name) for name in changed}}))


def test_same_engines(network: Topology, miniature: Path, tmp_path: Path) -> None:
    """Which connections no engine and no relay sees after an edit is the same by both."""
    case = prepare(network, _read(miniature, EDITED), Family.IPV4)
    compiled = Firewall(case, EDITED)
    for number, edit in enumerate(UNSEEN):
        build = tmp_path / str(number)
        shutil.copytree(miniature / EDITED, build / EDITED)
        edit.apply(build, EDITED)
        firewall = compiled
        if edit.file.endswith(".nft"):
            changed = judge(EDITED, _read(build, EDITED)[EDITED], case.space)
            firewall = Firewall(replace(case, judged={EDITED: changed}), EDITED)
        assert bool(_agreed(about_engines(firewall, build / EDITED))) is not edit.holds, edit.name


def test_same_networks() -> None:
    """Random rulesets, one behind the other and with random guards, break the same by both."""
    with second_opinion():
        rulesets = [(seed, each) for seed, each in read_random(range(NETWORKS)) if each is not None]
    broken = [each for answers in try_networks(rulesets) for each in _agreed(answers)]
    assert {each.partition(" ")[0] for each in broken} >= {"passes", "takes", "invariant"}


@pytest.mark.parametrize(
    ("rules", "dead"),
    [
        pytest.param(
            "table ip a { set x { type mark; elements = { 1 }; }\n"
            "chain c { type filter hook forward priority 0; meta mark set 2 meta mark @x drop; }; }\n"
            "table ip b { set x { type mark; elements = { 2 }; }\n"
            "chain c { type filter hook forward priority 1; meta mark @x drop; }; }",
            {"no packet needs element 1 of ip a x", "no packet needs a rule: ip a c rule 1"},
            id="sets of one name",
        ),
        pytest.param(
            'table ip a { chain both { tcp dport 1 accept; oifname != "x" accept; }\n'
            "chain in { type filter hook input priority 0; policy drop; jump both; }\n"
            "chain on { type filter hook forward priority 0; policy drop; jump both; }; }",
            set(),
            id="needed by one hook",
        ),
        pytest.param(
            "table ip a { chain both { meta mark 1 accept; accept; }\n"
            "chain second { type filter hook forward priority 0; meta mark set 1 jump both; }\n"
            "chain first { type filter hook forward priority 0; jump both; }; }",
            {"no packet needs a rule: ip a both rule 1"},
            id="entered twice",
        ),
        pytest.param(
            "table ip a { chain c { type filter hook forward priority 0;\n"
            "udp dport 5 meta mark & 0xfffffffe == 0 meta mark set 1 accept; meta mark set meta mark | 1; }; }",
            {"no packet needs a rule: ip a c rule 1"},
            id="written in other steps",
        ),
        pytest.param(
            "table ip a { chain c { type filter hook forward priority 0; policy drop;\n"
            "tcp dport 1 meta mark set 1 drop; udp dport 1 accept; }; }",
            {"no packet needs a rule: ip a c rule 1"},
            id="written, and dropped",
        ),
    ],
)
def test_needless(tmp_path: Path, rules: str, dead: set[str]) -> None:
    """What a rule does decides whether it is needed, not how; about these cases z3 and the diagrams have disagreed."""
    told = {
        each.partition(": ")[0] + _rule(each) for each in _agreed(about_life(_judged("host", _one(tmp_path, rules))))
    }
    assert told == dead


def _rule(told: str) -> str:
    rule = told.partition(": ")[2].partition(":")[0]
    return f": {rule}" if rule else ""


@pytest.mark.parametrize(
    ("one", "other", "commute"),
    [
        ("meta mark 0x4e000000 drop", "meta mark set 0x4e000000", False),
        ("tcp dport 1 meta mark set 1", "udp dport 1 meta mark set 2", True),
        ("meta mark set 1", "meta mark set 2", False),
        ("meta mark 5 meta mark set 5", "meta mark 5 meta mark set meta mark & 0xfffffffe", True),
        ("tcp dport 1 drop", "tcp dport 1 meta mark set 1", True),
    ],
)
def test_same_order(tmp_path: Path, one: str, other: str, *, commute: bool) -> None:
    """Whether chains commute depends on what is written in the end alone, by both."""
    head = "type filter hook forward priority 0;"
    rules = f"table ip a {{ chain one {{ {head} {one}; }}; }}\ntable ip b {{ chain other {{ {head} {other}; }}; }}"
    found = [_agreed(about_order(each)) for each in _judged("host", _one(tmp_path, rules))]
    assert found == [frozenset() if commute else {"ip a one and ip b other"}, frozenset()]


def _one(directory: Path, rules: str) -> Ruleset:
    path = directory / "rules.nft"
    path.write_text(f"{rules}\n", encoding="utf-8")
    with second_opinion():
        return read_rulesets([[path]])[0]
