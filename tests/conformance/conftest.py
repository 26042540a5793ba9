"""A small lab for the tests of conformance."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conformance.expect import Expectation
from conformance.lab import Lab
from netpolicy.build import compile_topology
from netpolicy.intent.routing import Routing
from tests.lab.small import small_topology

NETWORK = "conformance"


@pytest.fixture(name="build")
def _build(tmp_path: Path) -> Path:
    """Return a build of the small topology."""
    compile_topology(small_topology(NETWORK), tmp_path / "build")
    return tmp_path / "build"


@pytest.fixture(name="lab")
def _lab(build: Path) -> Iterator[Lab]:
    """Yield the small topology, alive."""
    with Lab(small_topology(NETWORK), build) as lab:
        yield lab


@pytest.fixture(name="expectation")
def _expectation() -> Expectation:
    """Return what the small topology demands now."""
    topology = small_topology(NETWORK)
    return Expectation(topology, Routing(topology), datetime.now(UTC))
