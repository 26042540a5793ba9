"""A small network with inline engines, and what is tried in it with and without some of their signatures."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from conformance.expect import Expectation
from conformance.inspection import run_inspection
from conformance.inspection.case import Case
from conformance.lab import Lab
from conformance.lab.rooted import Root, compile_for
from conformance.lab.scope import Scope
from conformance.outcome import Outcome, Status
from conformance.pki import Identities, issue_identities
from netpolicy.intent.routing import Routing
from tests.lab.small import small_topology

Living = tuple[Lab, Identities]

_TELLING = {
    *("no certificate", "a revoked certificate", "a revoked certificate, at the server"),
    *("TLS 1.1", "TLS 1.3", "a CBC suite", "another name", "no name", "ALPN http/1.1", "no ALPN"),
    *("RDP instead of TLS", "a greeting of no known protocol from the server"),
    *("a forged handshake header instead of TLS", "a forged handshake of another kind instead of TLS"),
    *("renegotiation", "renegotiation that the server asks for", "renegotiation, a strict server"),
}
"""Cases that are tried without a signature: enough to miss it."""


@contextmanager
def living_network(root: Root, directory: Path, name: str) -> Iterator[Living]:
    """Bring the network up with a root's engines, which pin the certificates of its ends."""
    topology = small_topology(name)
    compile_for(root, topology, directory / "build")
    identities = issue_identities(topology, directory / "identities", now=datetime.now(UTC))
    with Lab(topology, directory / "build", root) as lab:
        lab.pin(identities.fingerprints([*topology.nodes.values(), *topology.firewalls.values()]))
        yield lab, identities


def inspect(living: Living, kinds: frozenset[str] | None = None) -> list[Outcome]:
    """Try what must pass, and what must not: all of it, or what tells whether some kinds of signature are there."""
    lab, identities = living
    _forget_forged(identities)
    expectation = Expectation(lab.topology, Routing(lab.topology), datetime.now(UTC))

    def wanted(case: Case) -> bool:
        return kinds is None or not case.stopped_by or (bool(case.stopped_by & kinds) and case.label in _TELLING)

    return run_inspection(lab, identities, expectation, Scope(lab), wanted=wanted)


def inspect_without(living: Living, kind: str) -> list[Outcome]:
    """Try what tells whether a kind of signature is there, while no engine has it."""
    with without(living[0], kind):
        return inspect(living, frozenset({kind}))


@contextmanager
def without(lab: Lab, *kinds: str) -> Iterator[None]:
    """Have all engines run without some kinds of signature."""
    before = {}
    for firewall in lab.topology.firewalls:
        path = lab.engine_files(firewall) / "netpolicy.rules"
        before[path] = kept = path.read_text(encoding="utf-8")
        for kind in kinds:
            kept, count = re.subn(rf"^.*, signature {kind}, .*\n", "", kept, flags=re.MULTILINE)
            assert count
        path.write_text(kept, encoding="utf-8")
    reload(lab)
    try:
        yield
    finally:
        for path, text in before.items():
            path.write_text(text, encoding="utf-8")
        reload(lab)


def stopped_twice(living: Living) -> None:
    """Assert that new keys are stopped where a second hello is not, and what a server reads when neither is."""
    lab, _ = living
    hello = frozenset({"tls-renegotiation-hello"})
    lax = {"renegotiation", "renegotiation that the server asks for"}
    with without(lab, *hello):
        observed = {each.probe: each.observed for each in inspect(living, hello) if each.probe in lax}
        assert set(observed) == lax
        assert all(
            re.search(r"should have stopped it.*said: tls-renegotiation \(sid", each) for each in observed.values()
        )
    with without(lab, *hello, "tls-renegotiation"):
        observed = {each.probe: each.observed for each in inspect(living, hello)}
        assert {probe for probe, each in observed.items() if "the application has read" in each} == lax
        assert "the end of its connection" in observed["renegotiation, a strict server"]


def reload(lab: Lab) -> None:
    """Have every engine read its rules and lists anew."""
    for engine in lab.engines.values():
        engine.reload()


def deviations(outcomes: list[Outcome]) -> list[str]:
    """Return what did not hold."""
    return [f"{each.probe}: {each.observed}" for each in outcomes if each.status is not Status.PASS]


def _forget_forged(identities: Identities) -> None:
    """Remove what was forged before, so that it can be forged again."""
    for forged in identities.directory.glob(".*"):
        shutil.rmtree(forged)
