"""What tests of bundles share."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance_image.bundle import Trust
from ids_rules.lock import SidLock
from netpolicy.build import compile_files, write_build
from netpolicy.topology.load import load_topology
from tests.bundle.making import MANAGER, Site, authority, pem

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the build of the miniature network."""
    out = tmp_path_factory.mktemp("build") / "build"
    write_build(out, compile_files(load_topology(ROOT / "topology.yaml").topology, SidLock()))
    return out


@pytest.fixture
def site(tmp_path: Path, build: Path) -> Site:
    """Return a manager with an authority of operators of its own."""
    operators = authority()
    trust = tmp_path / "trust"
    trust.mkdir()
    (trust / f"{MANAGER}.pem").write_bytes(pem(operators.certificate))
    return Site(operators, Trust(trust), build)
