"""Exchanges of the application across real firewalls."""

from __future__ import annotations

import ssl
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, time
from pathlib import Path

import pytest

from conformance import exchange
from conformance.application import serve
from conformance.application.attend import attend
from conformance.application.message import encode, request_for
from conformance.application.serve import Serving
from conformance.application.tls import Terms
from conformance.exchange import run_exchanges
from conformance.expect import Expectation
from conformance.lab import Lab
from conformance.lab.scope import Scope
from conformance.outcome import Outcome, Status, Verdict
from conformance.pki import Identities, issue_identities
from netpolicy.build import compile_topology
from netpolicy.intent.routing import Routing
from netpolicy.reasons import DenyReason
from netpolicy.topology.model import Limits, Weekday, Window
from tests.lab.small import small_topology


@pytest.fixture(name="identities")
def _identities(lab: Lab, tmp_path: Path) -> Identities:
    return issue_identities(lab.topology, tmp_path / "identities", now=datetime.now(UTC))


@pytest.fixture(name="serving")
def _serving(lab: Lab, identities: Identities) -> Iterator[Serving]:
    with serve.serve_lab(lab, identities) as serving:
        yield serving


def _run(lab: Lab, serving: Serving, identities: Identities, expectation: Expectation) -> list[Outcome]:
    return run_exchanges(lab, serving, identities, expectation, Scope(lab), progress=lambda _line: None)


def test_permitted_pairs_speak_and_nobody_else_is_heard(
    lab: Lab, serving: Serving, identities: Identities, expectation: Expectation
) -> None:
    """Both families complete an exchange; every impostor comes to nothing, and the server says why."""
    outcomes = _run(lab, serving, identities, expectation)
    assert {outcome.status for outcome in outcomes} == {Status.PASS}
    assert Counter(outcome.expected.verdict for outcome in outcomes) == {Verdict.PERMIT: 2, Verdict.DENY: 18}
    reasons = "\n".join(serving.refusals)
    for word in (
        "expired",
        "revoked",
        "local issuer",
        "no flow permits it",
        "did not return a certificate",
        "agree on",
    ):
        assert word in reasons


def test_a_closed_firewall_is_a_deviation(
    lab: Lab, serving: Serving, identities: Identities, expectation: Expectation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a firewall drops what is permitted, the exchange fails and names its flow."""
    closed = identities.directory / "closed.nft"
    closed.write_text("table inet closed { chain forward { type filter hook forward priority 10; counter drop; }; }\n")
    lab.load("core", closed)
    monkeypatch.setattr(exchange, "_CONNECT_SECONDS", 0.3)
    outcomes = _run(lab, serving, identities, expectation)
    failed = [outcome for outcome in outcomes if outcome.status is Status.DEVIATION]
    assert {(outcome.family, outcome.expected.flow) for outcome in failed} == {(4, "notice"), (6, "notice")}
    assert {outcome.status for outcome in outcomes if outcome not in failed} == {Status.ERROR}


def test_a_careless_server_is_a_deviation(
    lab: Lab,
    serving: Serving,
    identities: Identities,
    expectation: Expectation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that lets everyone in who has a certificate is found out by what its application receives."""

    def careless(_connection: ssl.SSLSocket, allowed: dict[str, list[Terms]]) -> tuple[str, Terms]:
        uri, terms = next(iter(allowed.items()))
        return uri, terms[0]

    monkeypatch.setattr(serve, "check_peer", careless)
    outcomes = _run(lab, serving, identities, expectation)
    found = {(outcome.probe, outcome.family) for outcome in outcomes if outcome.status is Status.DEVIATION}
    let_in = ("with the certificate of beta, whom no flow permits", "with ALPN http/1.1")
    assert found == {(probe, family) for probe in let_in for family in (4, 6)}
    read = f"the server's application read {len(encode(request_for('app', 'test')))} bytes"
    assert {outcome.observed for outcome in outcomes if outcome.status is Status.DEVIATION} == {read}


def test_outside_service_hours_nothing_opens(tmp_path: Path) -> None:
    """A flow that is closed now is expected to be, and is."""
    topology = small_topology("closed")
    another_day = Weekday((datetime.now(UTC).weekday() + 3) % 7)
    limits = Limits(windows=(Window((another_day,), time(10), time(11)),))
    topology = replace(topology, flows={"notice": replace(topology.flows["notice"], limits=limits)})
    compile_topology(topology, tmp_path / "build")
    expectation = Expectation(topology, Routing(topology), datetime.now(UTC))
    identities = issue_identities(topology, tmp_path / "identities", now=datetime.now(UTC))
    with Lab(topology, tmp_path / "build") as lab, serve.serve_lab(lab, identities) as serving:
        outcomes = _run(lab, serving, identities, expectation)
    assert [outcome.expected.reason for outcome in outcomes] == [DenyReason.OUTSIDE_HOURS] * 2
    assert {outcome.status for outcome in outcomes} == {Status.PASS}


def test_a_kept_lab_serves(lab: Lab, tmp_path: Path) -> None:
    """The client that people type asks a server over mutual TLS, and says so when no flow leads there."""
    with attend(lab, tmp_path / "identities"):
        argv = ["python3", "-m", "conformance.application", "send"]
        environment = {"NETPOLICY_IDENTITY": str(tmp_path / "identities/alpha"), "PYTHONPATH": str(Path.cwd())}
        sent = lab.namespace("alpha").run(_python(argv, "gamma"), timeout=20, env=environment)
        refused = lab.namespace("alpha").run(_python(argv, "beta"), timeout=20, env=environment)
    assert sent.returncode == 0
    assert "notice: identity-record-notice to gamma [10.77.3.10]:17000 over mutual TLS (app/1)" in sent.stdout
    assert "acknowledgement" in sent.stdout
    assert refused.returncode == 2
    assert "no flow leads from here to 'beta'; it may ask: gamma (app)" in refused.stderr


def _python(argv: list[str], destination: str) -> list[str]:
    return [sys.executable, *argv[1:], destination]
