"""Servers that are careless in one respect are found out, and what proves nothing is not taken for a refusal."""

from __future__ import annotations

import ssl
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest

from conformance import exchange, impostors
from conformance.application import serve
from conformance.application.message import CODE, Inquiry
from conformance.application.message import Status as StatusMessage
from conformance.application.tls import Terms, context
from conformance.exchange import run_exchanges
from conformance.expect import Expectation
from conformance.lab import Lab
from conformance.lab.rooted import Root
from conformance.lab.scope import Scope, ScopeError
from conformance.outcome import Outcome, Status, Verdict
from conformance.pki import issue_identities
from conformance.pki.identities import Identity
from netpolicy.build import compile_topology
from netpolicy.intent.routing import Routing
from netpolicy.topology.model import Assurance, Limits, PortRange, Selector, Service, Title, Topology, Transport
from tests.lab.small import PLACE, PORT, small_topology


def _exchanges(lab: Lab, directory: Path, scope: Scope | None = None) -> list[Outcome]:
    topology = lab.topology
    identities = issue_identities(topology, directory / "identities", now=datetime.now(UTC))
    expectation = Expectation(topology, Routing(topology), datetime.now(UTC))
    lab.start_relays(identities.directory)
    with serve.serve_lab(lab, identities) as serving:
        scope = scope or Scope(lab)
        return run_exchanges(lab, serving, identities, expectation, scope, progress=lambda _line: None)


def _of_status(outcomes: list[Outcome], status: Status) -> dict[str, str]:
    """Return the probes of a status with what was observed, IPv6 aside."""
    return {outcome.probe: outcome.observed for outcome in outcomes if outcome.status is status and outcome.family == 4}


def _anyone(_: ssl.SSLSocket, allowed: dict[str, list[Terms]]) -> tuple[str, Terms]:
    """Be a server that does not look at who its peer is."""
    uri, terms = next(iter(allowed.items()))
    return uri, terms[0]


def test_every_refusal_is_told_by_the_server(lab: Lab, tmp_path: Path) -> None:
    """Each impostor is refused for being what it is, in both families alike."""
    refused = [each for each in _exchanges(lab, tmp_path) if each.expected.verdict is Verdict.DENY]
    assert {each.status for each in refused} == {Status.PASS}
    assert all(each.observed.startswith("the server refused: ") for each in refused)
    probes = Counter(each.probe for each in refused)
    assert len(probes) == 9
    assert set(probes.values()) == {2}


@pytest.mark.parametrize(
    ("flags", "heard"),
    [
        (ssl.VERIFY_CRL_CHECK_CHAIN, "with a revoked certificate"),
        (None, "without a certificate"),
    ],
)
def test_a_server_that_verifies_too_little_is_found_out(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: ssl.VerifyFlags | None, heard: str
) -> None:
    """One that ignores revocation, or takes whoever shows no certificate, has read what it should not."""

    def careless(identity: Identity, assurances: frozenset[Assurance], *alpn: str, server: bool) -> ssl.SSLContext:
        found = context(identity, assurances, *alpn, server=server)
        if flags is None:
            found.verify_mode = ssl.CERT_OPTIONAL
        else:
            found.verify_flags &= ~flags
        return found

    monkeypatch.setattr(serve, "context", careless)
    if flags is None:
        monkeypatch.setattr(serve, "check_peer", _anyone)
    found = _of_status(_exchanges(lab, tmp_path), Status.DEVIATION)
    assert heard in found
    assert "the server's application read" in found[heard]


def test_an_old_version_that_is_taken_is_found_out(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes every version and does not look at it reads what TLS 1.3 brings on a TLS 1.2 flow."""

    def careless(identity: Identity, _: frozenset[Assurance], *alpn: str, server: bool) -> ssl.SSLContext:
        return context(identity, frozenset(Assurance), *alpn, server=server)

    monkeypatch.setattr(serve, "context", careless)
    assert _of_status(_exchanges(lab, tmp_path), Status.DEVIATION) == {}
    monkeypatch.setattr(serve, "check_peer", _anyone)
    (tmp_path / "again").mkdir()
    assert "with TLS 1.3" in _of_status(_exchanges(lab, tmp_path / "again"), Status.DEVIATION)


def test_a_client_that_fails_by_itself_proves_nothing(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that cannot speak TLS 1.1 at all looks refused; without the server's word it is an error."""

    def unable(own: Identity, alpn: str) -> ssl.SSLContext:
        found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        found.check_hostname = False
        with pytest.deprecated_call():
            found.minimum_version = found.maximum_version = ssl.TLSVersion.TLSv1_1
        found.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")  # which only TLS 1.2 has
        found.load_cert_chain(own.chain, own.key)
        found.set_alpn_protocols([alpn])
        return found

    monkeypatch.setattr(impostors, "_old", unable)
    outcomes = _exchanges(lab, tmp_path)
    errors = _of_status(outcomes, Status.ERROR)
    assert list(errors) == ["with TLS 1.1"]
    assert "refused for another reason" in errors["with TLS 1.1"]
    assert "no ciphers available" in errors["with TLS 1.1"].lower().replace("_", " ")
    assert _of_status(outcomes, Status.DEVIATION) == {}


def test_a_wrong_answer_is_a_deviation(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exchange counts only with the answer that belongs to the request."""
    monkeypatch.setattr(serve, "answer_to", lambda _: StatusMessage())
    (found,) = _of_status(_exchanges(lab, tmp_path), Status.DEVIATION).items()
    assert found[0] == f"identity-record-notice tcp/{PORT} TLS 1.2"
    assert "identity-record-notice was answered by kind='status'" in found[1]


def test_a_request_for_another_purpose_is_a_deviation(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A permitted client that asks for more than its flow is for gets no answer."""
    monkeypatch.setattr(exchange, "request_for", lambda *_: Inquiry(resident_code=CODE, affair="test"))
    (found,) = _of_status(_exchanges(lab, tmp_path), Status.DEVIATION).items()
    assert found[0] == f"inquiry tcp/{PORT} TLS 1.2"
    assert "the exchange failed: the peer ended after 0 of" in found[1]


def test_exchanges_ask_the_scope_guard(lab: Lab, tmp_path: Path) -> None:
    """Nothing is sent beyond what the run may send."""
    with pytest.raises(ScopeError, match="more than the 0 this run may still send"):
        _exchanges(lab, tmp_path, Scope(lab, packets=0))


def _manifold() -> Topology:
    """Return the small topology with two services and both assurances on one port, a range, and managed firewalls."""
    topology = small_topology("manifold", Assurance.TERMINATE)
    notice = topology.flows["notice"]
    flows = {
        "notice": notice,
        "seen": replace(notice, id="seen", sources=Selector(nodes=("beta",)), assurance=Assurance.INSPECT),
        "wide": replace(notice, id="wide", service="range", sources=Selector(nodes=("beta",))),
        "asked": replace(notice, id="asked", service="inquiry", sources=Selector(nodes=("delta",))),
        "managed": replace(
            notice,
            id="managed",
            service="management",
            sources=Selector(nodes=("gamma",)),
            destinations=Selector(managed_by="operator"),
            limits=Limits(rate=20, connections=5),
        ),
    }
    services = dict(topology.services)
    for name, ports in (
        ("inquiry", PortRange(PORT, PORT)),
        ("range", PortRange(20000, 20100)),
        ("management", PortRange(18000, 18000)),
    ):
        services[name] = Service(name, Title(name), Transport.TCP, (ports,), f"{name}/1", None, PLACE)
    nodes = dict(topology.nodes)
    addresses = (ip_address("10.77.1.12"), ip_address("fd77:0:0:1::c"))
    interface = replace(nodes["beta"].interface, addresses=addresses, mac="02:77:00:00:01:0c")
    nodes["delta"] = replace(nodes["beta"], id="delta", interface=interface)
    return replace(topology, nodes=nodes, flows=flows, services=services)


def test_every_kind_of_flow_is_exchanged(tmp_path: Path) -> None:
    """Each flow has its version, firewalls serve their manager within its limits, a range is tried at both ends."""
    topology = _manifold()
    compile_topology(topology, tmp_path / "build")
    with Lab(topology, tmp_path / "build", Root.find(), inline=False) as lab:
        outcomes = _exchanges(lab, tmp_path)
    assert [each for each in outcomes if each.status is not Status.PASS] == []
    permitted = Counter(
        (each.source, each.destination, each.probe) for each in outcomes if each.expected.verdict is Verdict.PERMIT
    )
    assert permitted == {
        ("alpha", "gamma", "identity-record-notice tcp/17000 TLS 1.3"): 2,
        ("beta", "gamma", "identity-record-notice tcp/17000 TLS 1.2"): 2,
        ("delta", "gamma", "inquiry tcp/17000 TLS 1.3"): 2,
        ("beta", "gamma", "identity-record-notice tcp/20000 TLS 1.3"): 2,
        ("beta", "gamma", "identity-record-notice tcp/20100 TLS 1.3"): 2,
        ("gamma", "edge", "status-inquiry tcp/18000 TLS 1.3"): 2,
        ("gamma", "core", "status-inquiry tcp/18000 TLS 1.3"): 2,
    }
    other = {(each.expected.flow, each.probe) for each in outcomes if each.probe in {"with TLS 1.2", "with TLS 1.3"}}
    assert other == {
        ("notice", "with TLS 1.2"),
        ("seen", "with TLS 1.3"),
        ("asked", "with TLS 1.2"),
        ("wide", "with TLS 1.2"),
        ("managed", "with TLS 1.2"),
    }
