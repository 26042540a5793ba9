"""One authorised source takes all that it can get, and its neighbour's exchanges pass.

The short form of benchmarks/starvation.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from conformance.application.serve import serve_lab
from conformance.lab import Lab
from conformance.lab.rooted import Root, compile_for
from conformance.lab.scope import Scope
from conformance.pki import issue_identities
from conformance.starvation.attacker import Kind
from conformance.starvation.measure import Starvation
from netpolicy.topology.model import Limits
from tests.lab.small import crowded_topology

_CONNECTIONS = 80
_EXCHANGES = 20


@pytest.fixture(name="starvation", scope="module")
def _starvation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starvation]:
    root = Root.find()
    assert root is not None, "make setup"
    directory = tmp_path_factory.mktemp("starvation")
    topology = crowded_topology("starving", Limits(rate=100, connections=_CONNECTIONS))
    compile_for(root, topology, directory / "build")
    identities = issue_identities(topology, directory / "identities", now=datetime.now(UTC))
    with Lab(topology, directory / "build", root) as lab:
        lab.start_relays(identities.directory)
        lab.pin(identities.fingerprints([*topology.nodes.values(), *topology.firewalls.values()]))
        with serve_lab(lab, identities, 4 * _CONNECTIONS) as serving:
            alpha, beta = topology.nodes["alpha"], topology.nodes["beta"]
            yield Starvation(lab, serving, identities, Scope(lab), alpha, beta, sessions=_CONNECTIONS, settle=2.0)


@pytest.mark.parametrize(
    ("kind", "flow"),
    [(Kind.SILENT, "notice"), (Kind.SLOW_REQUESTS, "letter"), (Kind.HALF_OPEN, "notice"), (Kind.CONNECTIONS, "letter")],
)
def test_a_source_that_takes_all_it_can_starves_nobody(starvation: Starvation, kind: Kind, flow: str) -> None:
    """From both of its addresses it gets half of the flow's connections, is refused the rest, and all others pass."""
    found = starvation.run(kind, flow, (4, 6), _EXCHANGES)
    assert found.failures == {}
    assert found.passed == _EXCHANGES
    assert found.counted.get("deny_source_connections", 0) + found.counted.get("deny_source_rate", 0) > 0
    if kind in {Kind.SILENT, Kind.SLOW_REQUESTS}:
        assert found.attacked["held at most"] == _CONNECTIONS / 2
    else:
        assert found.attacked["begun"] > 10 * _CONNECTIONS
