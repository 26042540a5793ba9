"""What tests of the agent share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance_image.bundle import Bundle
from conformance.lab.rooted import Root as Engines
from conformance.pki import Identities, issue_identities
from netpolicy.topology.model import Assurance
from tests.agent.making import FIREWALL, Operator, files_of, topology
from tests.agent.world import World


@pytest.fixture(scope="session")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """Return who signs."""
    return Operator.make(tmp_path_factory.mktemp("share") / "trust")


@pytest.fixture(scope="session")
def both(operator: Operator) -> Bundle:
    """Return serial 1: both flows."""
    return operator.bundle(files_of("notice", "manage"), 1)


@pytest.fixture(scope="session")
def only_management(operator: Operator) -> Bundle:
    """Return serial 2: without the flow ``notice``."""
    return operator.bundle(files_of("manage"), 2)


@pytest.fixture(scope="session")
def locked_out(operator: Operator) -> Bundle:
    """Return serial 3: without the flow over which bundles are confirmed."""
    return operator.bundle(files_of("notice"), 3)


@pytest.fixture
def world(tmp_path: Path, operator: Operator) -> Iterator[World]:
    """Yield an appliance that is switched on, and has no bundle."""
    found = World(tmp_path, operator)
    found.power_on()
    yield found
    found.power_off()


@pytest.fixture
def identities(tmp_path: Path) -> Identities:
    """Return certificates of all ends of the relayed network."""
    relayed = topology("notice", assurance=Assurance.TERMINATE)
    return issue_identities(relayed, tmp_path / "identities", now=datetime.now(UTC))


@pytest.fixture
def relaying(tmp_path: Path, operator: Operator, identities: Identities) -> Iterator[World]:
    """Yield an appliance that enforces serial 1 with its relay."""
    engines = Engines.find()
    if engines is None:
        pytest.fail("there is no root with HAProxy: make setup")
    found = World(tmp_path / "world", operator)
    found.equip(engines)
    found.power_on()
    found.root.identity.mkdir(mode=0o700)
    for name in ("chain.pem", "key.pem", "crl.pem"):
        shutil.copy(identities.directory / FIREWALL / name, found.root.identity / name)
    found.install(operator.bundle(files_of("notice", relay=identities), 1))
    assert found.boot(), found.console()
    yield found
    found.power_off()


@pytest.fixture
def running(world: World, both: Bundle) -> World:
    """Return an appliance that enforces serial 1."""
    world.install(both)
    assert world.boot(), world.console()
    return world
