"""The network of these tests, alive."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conformance.lab import Lab
from conformance.lab.rooted import Root
from conformance.pki import issue_identities
from netpolicy.build import compile_topology
from netpolicy.topology.load import load_topology
from tests.management.network import TOPOLOGY, Managed, Network, manage


@pytest.fixture(scope="session", name="network")
def _network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Bring it up; a test leaves it as it found it."""
    root = Root.find()
    assert root is not None, "make setup"
    directory = tmp_path_factory.mktemp("management")
    file = directory / "topology.yaml"
    file.write_text(TOPOLOGY, encoding="utf-8")
    topology = load_topology(file).topology
    compile_topology(topology, directory / "build")
    identities = issue_identities(topology, directory / "identities", now=datetime.now(UTC))
    with Lab(topology, directory / "build", root, inline=False) as lab:
        lab.start_relays(identities.directory)
        network = Network(topology, file, lab, identities)
        network.managed = {name: manage(network, name, directory / name) for name in topology.firewalls}
        yield network
        for each in network.managed.values():
            each.server.end()


@pytest.fixture
def managed(network: Network) -> Iterator[Managed]:
    """Return the firewall behind the other one, and leave it as it was."""
    found = network.managed["town-fw"]
    found.firewall.records.clear()
    found.firewall.calls.clear()
    yield found
    found.firewall.hold.set()
    found.firewall.full = False
    found.firewall.restore()


@pytest.fixture
def bundle(network: Network, tmp_path: Path) -> Path:
    """Return a ruleset that permits the same."""
    place = tmp_path / "new.bundle"
    place.write_bytes((network.lab.build / "town-fw" / "nftables.nft").read_bytes())
    return place
