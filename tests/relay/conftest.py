"""The small network with its flow relayed at both firewalls, alive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from conformance.expect import Expectation
from conformance.lab import Lab
from conformance.lab.rooted import Root
from conformance.pki import Identities, issue_identities
from netpolicy.build import compile_topology
from netpolicy.intent.routing import Routing
from netpolicy.topology.model import Assurance
from tests.lab.small import small_topology


@dataclass(frozen=True, slots=True)
class Living:
    """A lab with relays and without engines."""

    lab: Lab
    identities: Identities
    expectation: Expectation


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Living]:
    """Bring it up; a test leaves it as it found it."""
    root = Root.find()
    assert root is not None, "make setup"
    directory = tmp_path_factory.mktemp("relay")
    topology = small_topology("relayed", Assurance.TERMINATE)
    compile_topology(topology, directory / "build")
    identities = issue_identities(topology, directory / "identities", now=datetime.now(UTC))
    with Lab(topology, directory / "build", root, inline=False) as lab:
        lab.start_relays(identities.directory)
        yield Living(lab, identities, Expectation(topology, Routing(topology), datetime.now(UTC)))
