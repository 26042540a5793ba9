"""The stage ``witness``: it holds where model and kernel agree, and says so where they do not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conformance.lab import Lab
from conformance.lab.scope import Scope
from conformance.outcome import Status
from conformance.report.junit import junit
from conformance.results import Results
from conformance.run import Summary, conform
from conformance.witness.forecast import Model
from conformance.witness.run import Comparison, FaultError, live_model, planned
from netpolicy.proof.model import Collection, Dispatch, Element, Match, Rule, Ruleset, Span, Statement
from tests.lab.small import small_topology


def test_model_and_kernel_agree(build: Path) -> None:
    """Every witness of the small network ends where the model says, and both families and all ends occur."""
    summary = conform(small_topology("conformance"), build, stages=["witness"])
    assert summary.results.outcomes == []
    assert summary.exit_code == 0
    passed = summary.results.passed
    assert {each.firewall for each in passed} == {"edge", "core"}
    reasons = {"fragment", "ip_option", "extension_header", "ttl", "spoofed_source", "no_route", "invalid", "no_flow"}
    assert reasons <= {each.why for each in passed}
    assert any(each.verdict == "permit" and each.why == "notice" for each in passed)
    assert passed.total() > 5000


def _changed(ruleset: Ruleset, name: str) -> Ruleset:
    """Return a ruleset with the first address in a set or map one higher."""
    chains = {}
    for key, chain in ruleset.chains.items():
        rules = [
            Rule(each.chain, each.number, tuple(_moved(one, name) for one in each.statements), each.text, each.comment)
            for each in chain.rules
        ]
        chains[key] = replace(chain, rules=tuple(rules))
    return Ruleset(chains, ruleset.collections)


def _moved(statement: Statement, name: str) -> Statement:
    if not isinstance(statement, Match | Dispatch) or statement.collection.name != name:
        return statement
    first, *others = statement.collection.elements
    key = list(first.key or ())
    place = next(n for n, part in enumerate(key) if isinstance(part, Span))
    part = key[place]
    assert isinstance(part, Span)
    key[place] = Span(part.first + 1, part.last + 1)
    element = Element(tuple(key), first.data, first.comment)
    return replace(statement, collection=Collection(statement.collection.name, (element, *others)))


@pytest.mark.parametrize("name", ["no_source4", "permit4_lan_wan", "behind4"])
def test_a_wrong_model_is_a_fault(lab: Lab, name: str) -> None:
    """A model with one element moved by one address is contradicted by the kernel, with one frame and its trace."""
    right = live_model(lab, "edge")
    wrong = Model(_changed(right.ruleset, name), right.place, right.interfaces)
    scope = Scope(lab)
    with lab.isolated(), pytest.raises(FaultError) as fault:
        Comparison(lab, scope, "edge", wrong, Results()).run(planned(wrong, scope))
    outcome = fault.value.outcome
    assert outcome.status is Status.FAULT
    assert outcome.frames
    assert "the kernel: " in outcome.observed
    assert "the model's way: inet netpolicy" in outcome.observed


def test_a_ruleset_changed_behind_the_models_back_is_a_fault(lab: Lab, tmp_path: Path) -> None:
    """What the kernel holds is read once; another ruleset that is loaded then does not go unnoticed."""
    model, scope = live_model(lab, "edge"), Scope(lab)
    trials = planned(model, scope)
    text = (lab.build / "edge/nftables.nft").read_text(encoding="utf-8")
    assert "10.77.1.10 . 10.77.3.10" in text
    changed = tmp_path / "build-changed"
    (changed / "edge").mkdir(parents=True)
    (changed / "edge/nftables.nft").write_text(
        text.replace("10.77.1.10 . 10.77.3.10", "10.77.1.11 . 10.77.3.10"), encoding="utf-8"
    )
    lab.build = changed
    with lab.isolated(), pytest.raises(FaultError) as fault:
        Comparison(lab, scope, "edge", model, Results()).run(trials)
    outcome = fault.value.outcome
    assert (outcome.firewall, outcome.status) == ("edge", Status.FAULT)
    summary = Summary(lab.topology, ("witness",), ("edge",), begun=datetime(2026, 1, 1, tzinfo=UTC))
    summary.results.add(outcome)
    assert summary.exit_code == 1
    assert b"fault of the model" in junit(summary)
