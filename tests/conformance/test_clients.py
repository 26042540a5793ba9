"""Real clients of the forbidden protocols across real firewalls."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.clients import run_clients
from conformance.expect import Expectation
from conformance.lab import Lab
from conformance.lab.scope import Scope
from conformance.outcome import Outcome, Status
from conformance.protocols import servers
from conformance.protocols.catalogue import Protocol
from netpolicy.nftables.names import ACCEPTED_MARK

_PASS = f"meta mark set {ACCEPTED_MARK:#x} accept"
"""Without the mark the guard table drops it all the same."""


def _run(lab: Lab, expectation: Expectation) -> list[Outcome]:
    return run_clients(lab, expectation, Scope(lab), lab.topology.firewalls, lambda _line: None)


def test_no_client_gets_across(lab: Lab, expectation: Expectation) -> None:
    """Every protocol dies in both directions, families and on both ports, at the firewall that must drop it."""
    outcomes = _run(lab, expectation)
    assert {outcome.status for outcome in outcomes} == {Status.PASS}
    assert {outcome.firewall for outcome in outcomes} == {"edge", "core"}
    assert {outcome.probe.split()[0] for outcome in outcomes} == set(Protocol)
    assert len(outcomes) == 2 * 2 * 4 * 2


def test_an_open_firewall_is_a_deviation(lab: Lab, expectation: Expectation, tmp_path: Path) -> None:
    """When the firewalls let everything through, every client succeeds, and is reported with the firewall."""
    for firewall in lab.topology.firewalls:
        text = (lab.build / firewall / "nftables.nft").read_text(encoding="utf-8")
        for hook in ("prerouting priority -450", "forward priority 0"):
            text = text.replace(f"hook {hook}; policy drop;", f"hook {hook}; policy drop;\n\t\t{_PASS}")
        (tmp_path / "open.nft").write_text(text)
        lab.load(firewall, tmp_path / "open.nft")
    outcomes = _run(lab, expectation)
    assert {outcome.status for outcome in outcomes} == {Status.DEVIATION}
    assert {(outcome.source, outcome.firewall) for outcome in outcomes} == {("alpha", "edge"), ("gamma", "core")}
    assert {outcome.observed for outcome in outcomes} == {
        "a mail was taken",
        "a page was fetched",
        "a directory was listed",
        "a session was opened",
    }


def test_a_dead_server_proves_nothing(lab: Lab, expectation: Expectation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence counts for nothing where the server does not answer its neighbour either."""
    alive = dict(servers._IN_PROCESS)
    monkeypatch.setattr(servers, "_IN_PROCESS", {name: alive[name] for name in alive if name is not Protocol.HTTP})
    outcomes = _run(lab, expectation)
    by_protocol = {
        protocol: {outcome.status for outcome in outcomes if outcome.probe.startswith(protocol)}
        for protocol in Protocol
    }
    assert by_protocol.pop(Protocol.HTTP) == {Status.ERROR}
    assert set().union(*by_protocol.values()) == {Status.PASS}
