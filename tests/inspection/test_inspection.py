"""Inline engines on a small network: every signature is needed, and a dead engine passes nothing."""

from __future__ import annotations

import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from conformance.expect import Expectation
from conformance.inspection import run_inspection
from conformance.inspection.case import Case
from conformance.lab import Lab
from conformance.lab.rooted import Root
from conformance.lab.scope import Scope
from conformance.outcome import Outcome, Status, Verdict
from conformance.pki import Identities, issue_identities
from netpolicy.build import compile_topology
from netpolicy.intent.routing import Routing
from netpolicy.topology.ends import End
from tests.lab.small import PORT, small_topology

_TELLING = {
    *("no certificate", "a revoked certificate", "a revoked certificate, at the server"),
    *("TLS 1.1", "TLS 1.3", "a CBC suite", "another name", "no name", "ALPN http/1.1", "no ALPN"),
    *("RDP instead of TLS", "a greeting of no known protocol from the server"),
    *("a forged handshake header instead of TLS", "a forged handshake of another kind instead of TLS"),
    *("renegotiation", "renegotiation that the server asks for", "renegotiation, a strict server"),
}
"""Cases that are tried without a signature: enough to miss it."""


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Identities]]:
    """Bring the network up with engines that pin the certificates of its ends."""
    root = Root.find()
    assert root is not None, "make setup"
    directory = tmp_path_factory.mktemp("inspection")
    topology = small_topology("inspected")
    compile_topology(topology, directory / "build")
    identities = issue_identities(topology, directory / "identities", now=datetime.now(UTC))
    with Lab(topology, directory / "build", root) as lab:
        lab.pin(identities.fingerprints([*topology.nodes.values(), *topology.firewalls.values()]))
        yield lab, identities


def _inspect(living: tuple[Lab, Identities], kinds: frozenset[str] | None = None) -> list[Outcome]:
    lab, identities = living
    topology = lab.topology
    _forget_forged(identities)
    expectation = Expectation(topology, Routing(topology), datetime.now(UTC))

    def wanted(case: Case) -> bool:
        return kinds is None or not case.stopped_by or (bool(case.stopped_by & kinds) and case.label in _TELLING)

    return run_inspection(lab, identities, expectation, Scope(lab), wanted=wanted)


def _forget_forged(identities: Identities) -> None:
    """Remove what was forged before, so that it can be forged again."""
    for forged in identities.directory.glob(".*"):
        shutil.rmtree(forged)


def _deviations(outcomes: list[Outcome]) -> list[str]:
    return [f"{each.probe}: {each.observed}" for each in outcomes if each.status is not Status.PASS]


def test_all_cases_hold(living: tuple[Lab, Identities]) -> None:
    """Both ends have to show the certificates that are pinned for them, whatever the server takes."""
    outcomes = _inspect(living)
    assert _deviations(outcomes) == []
    assert sum(each.expected.verdict is Verdict.DENY for each in outcomes) >= 50


@pytest.mark.parametrize(
    "kind",
    [
        "tls-client-certificate",
        "tls-server-certificate",
        "tls-version",
        "tls-cipher-suite",
        "tls-name",
        "tls-alpn",
        "tls-server-first",
        "tls-first-bytes",
        "tls-client-hello",
        "tls-renegotiation-hello",
    ],
)
def test_each_signature_is_needed(kind: str, living: tuple[Lab, Identities]) -> None:
    """Without it, on both firewalls, something that must be stopped is not, or not for what it is."""
    with _without(living[0], kind):
        outcomes = _inspect(living, frozenset({kind}))
    assert [each for each in outcomes if each.status is Status.DEVIATION]


def test_renegotiation_is_stopped_twice(living: tuple[Lab, Identities]) -> None:
    """Where the second hello is not recognised, new keys are; without both, what follows is read by a lax server."""
    lab, _ = living
    hello = frozenset({"tls-renegotiation-hello"})
    lax = {"renegotiation", "renegotiation that the server asks for"}
    with _without(lab, *hello):
        observed = {each.probe: each.observed for each in _inspect(living, hello) if each.probe in lax}
        assert set(observed) == lax
        assert all(
            re.search(r"should have stopped it.*said: tls-renegotiation \(sid", each) for each in observed.values()
        )
    with _without(lab, *hello, "tls-renegotiation"):
        observed = {each.probe: each.observed for each in _inspect(living, hello)}
        assert {probe for probe, each in observed.items() if "the application has read" in each} == lax
        assert "the end of its connection" in observed["renegotiation, a strict server"]


@contextmanager
def _without(lab: Lab, *kinds: str) -> Iterator[None]:
    """Have all engines run without some kinds of signature."""
    before = {}
    for firewall in lab.topology.firewalls:
        path = lab.engine_files(firewall) / "netpolicy.rules"
        before[path] = kept = path.read_text(encoding="utf-8")
        for kind in kinds:
            kept, count = re.subn(rf"^.*, signature {kind}, .*\n", "", kept, flags=re.MULTILINE)
            assert count
        path.write_text(kept, encoding="utf-8")
    _reload(lab)
    try:
        yield
    finally:
        for path, text in before.items():
            path.write_text(text, encoding="utf-8")
        _reload(lab)


@pytest.mark.parametrize("end", ["alpha", "gamma"])
def test_each_pinned_certificate_is_needed(end: str, living: tuple[Lab, Identities]) -> None:
    """Without its line in the list, the end itself no longer passes."""
    lab, identities = living
    ends: list[End] = [*lab.topology.nodes.values(), *lab.topology.firewalls.values()]
    pinned = identities.fingerprints(ends)
    lab.pin({name: each for name, each in pinned.items() if name != end})
    try:
        outcomes = _inspect(living, frozenset())
    finally:
        lab.pin(pinned)
    assert {each.status for each in outcomes} == {Status.DEVIATION}


@pytest.mark.parametrize("firewall", ["edge", "core"])
def test_each_name_is_needed(firewall: str, living: tuple[Lab, Identities]) -> None:
    """Without its line in the list of one firewall, the server that is asked for by name is no longer reached."""
    lab, _ = living
    path = lab.engine_files(firewall) / "names-notice.lst"
    lines = path.read_text(encoding="ascii")
    assert len(lines.splitlines()) == 1
    path.write_text("", encoding="ascii")
    _reload(lab)
    try:
        outcomes = _inspect(living, frozenset())
    finally:
        path.write_text(lines, encoding="ascii")
        _reload(lab)
    assert {each.status for each in outcomes} == {Status.DEVIATION}


def _reload(lab: Lab) -> None:
    for engine in lab.engines.values():
        engine.reload()


def _connect(lab: Lab, seconds: float = 5.0) -> socket.socket:
    target = (str(lab.topology.nodes["gamma"].interface.addresses[0]), PORT)
    return lab.namespace("alpha").call(lambda: socket.create_connection(target, timeout=seconds))


def test_a_killed_engine_passes_nothing_until_it_is_back(living: tuple[Lab, Identities]) -> None:
    """SIGKILL; the wire is dead; a new process; the wire lives."""
    lab, _ = living
    listening = lab.namespace("gamma").call(lambda: socket.create_server(("", PORT)))
    with listening:
        for engine in lab.engines.values():
            _connect(lab).close()
            engine.kill()
            with pytest.raises(TimeoutError):
                _connect(lab, 1.5)  # long enough for a second SYN
            engine.start()
            _connect(lab).close()


def test_a_reload_keeps_connections(living: tuple[Lab, Identities]) -> None:
    """TCP goes on across five reloads of every engine: nothing is lost, nothing begins anew."""
    lab, _ = living
    listening = lab.namespace("gamma").call(lambda: socket.create_server(("", PORT)))
    with listening, _connect(lab) as client:
        server, _ = listening.accept()
        with server:
            hello = bytes.fromhex("16030100fe010000fa0303") + bytes(244)
            client.sendall(hello)
            server.settimeout(2.0)
            assert server.recv(1024) == hello
            for number in range(5):
                _reload(lab)
                # More of a handshake record that has begun, so that the engine goes on waiting for its end.
                part = bytes([number])
                client.sendall(part)
                assert server.recv(16) == part
                time.sleep(0.01)
