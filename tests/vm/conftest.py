"""The test image in virtual machines, and what its firewalls are given."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance_image.vm.image import Image
from appliance_image.vm.operators import TrialOperators
from appliance_image.vm.snapshot import Saved, save
from conformance.lab.rooted import Root, compile_for
from conformance.pki import Identities, issue_identities
from netpolicy.cli._vm import operators_of
from netpolicy.topology.load import load_topology
from netpolicy.topology.model import Topology
from tests.image.built import image_for_tests


@pytest.fixture(scope="session", name="network")
def _network() -> Topology:
    """Return the miniature network."""
    return load_topology(Path("topology.yaml")).topology


@pytest.fixture(scope="session", name="compiled")
def _compiled(network: Topology, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return its build."""
    out = tmp_path_factory.mktemp("vm") / "build"
    compile_for(Root.find(), network, out)
    return out


@pytest.fixture(scope="session", name="image")
def _image(network: Topology) -> Image:
    """Return the test image, which trusts the network's trial operators."""
    TrialOperators.make(operators_of(network), network)
    return Image.read(image_for_tests())


@pytest.fixture(scope="session", name="operators")
def _operators(network: Topology, image: Image) -> TrialOperators:  # noqa: ARG001 - it is built to trust them
    """Return whom the image trusts."""
    return TrialOperators(operators_of(network))


@pytest.fixture(scope="session", name="identities")
def _identities(network: Topology, tmp_path_factory: pytest.TempPathFactory) -> Identities:
    """Return certificates for all ends."""
    return issue_identities(network, tmp_path_factory.mktemp("vm") / "identities", now=datetime.now(UTC))


@pytest.fixture(scope="session", name="saved")
def _saved(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Return a guest that was saved before it knew which firewall it is."""
    return save(image, tmp_path_factory.mktemp("vm") / "saved")
