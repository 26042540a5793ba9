"""Inline engines of Suricata 7 on a small network: what the form for it says is enforced, with real ends."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conformance.expect import Expectation
from conformance.frames.differential import run_differential
from conformance.frames.run import Line
from conformance.lab.rooted import Root
from conformance.lab.scope import Scope
from conformance.outcome import Status, Verdict
from conformance.results import Results
from conformance.stages.frame import run_frame_stage
from netpolicy.build import Suricata
from netpolicy.intent.routing import Routing
from tests.inspection.living import Living, deviations, inspect, inspect_without, living_network, stopped_twice
from tests.lab.small import PORT

_ROOT = Path(__file__).parents[2] / ".engine7/root"


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Living]:
    """Bring the network up with engines of the root that ``make setup`` makes for tests."""
    root = Root(_ROOT)
    assert root.suricata is Suricata.V7, "make setup"
    with living_network(root, tmp_path_factory.mktemp("seven"), "seven") as found:
        yield found


def test_all_cases_hold(living: Living) -> None:
    """Nothing that Suricata 8 stops passes Suricata 7."""
    outcomes = inspect(living)
    assert deviations(outcomes) == []
    assert sum(each.expected.verdict is Verdict.DENY for each in outcomes) >= 50


@pytest.mark.parametrize("kind", ["tls-client-certificate", "tls-client-no-certificate", "tls-version", "tls-no-name"])
def test_each_signature_is_needed(kind: str, living: Living) -> None:
    """Without it, on both firewalls, something that must be stopped is not, or not for what it is."""
    assert [each for each in inspect_without(living, kind) if each.status is Status.DEVIATION]


def test_renegotiation_is_stopped_twice(living: Living) -> None:
    """As by Suricata 8: by its hello, by its change of keys without that, and by neither without both."""
    stopped_twice(living)


def test_no_shape_of_frame_passes(living: Living) -> None:
    """What Suricata 7 does not decode, or decodes otherwise, is not copied either."""
    lab, _ = living
    results = Results()
    expectation = Expectation(lab.topology, Routing(lab.topology), datetime.now(UTC))
    with lab.isolated():
        tried = run_frame_stage(lab, Scope(lab), expectation, list(lab.topology.firewalls), results)
    assert results.outcomes == []
    assert results.passed.total() == tried > 700


def test_random_ends(living: Living) -> None:
    """Nor does a connection go on unseen behind an end that the kernel does not take for one."""
    lab, _ = living
    alpha, gamma = (lab.topology.nodes[name] for name in ("alpha", "gamma"))
    lines = [
        Line(alpha, gamma, (source, destination), PORT, "core", "wan")
        for source, destination in zip(alpha.interface.addresses, gamma.interface.addresses, strict=True)
    ]
    kinds = ("flags", "nothing", "sequence numbers", "bits of TCP")
    with lab.isolated():
        found = run_differential(lab, Scope(lab), lines, seed=5, frames=3000, among=kinds)
    assert found.connections > 700
    assert found.unseen == []
