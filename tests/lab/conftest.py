"""A small lab that the tests share, and what the machine must have for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.lab import Lab
from conformance.lab.preflight import LAB, missing
from netpolicy.build import compile_topology
from tests.lab.small import small_topology


@pytest.fixture(scope="session")
def able() -> None:
    """Skip, naming what is missing, where no lab can run."""
    lacking = [str(each) for each in missing() if each.needed_for == LAB]
    if lacking:
        pytest.skip(f"this machine lacks {'; '.join(lacking)}")


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a build of the small topology."""
    out = tmp_path_factory.mktemp("small") / "build"
    compile_topology(small_topology(), out)
    return out


@pytest.fixture(scope="session")
def lab(able: None, build: Path) -> Iterator[Lab]:  # noqa: ARG001 - it is asked for its skip
    """Yield the small topology, alive; a test leaves it as it found it."""
    with Lab(small_topology(), build) as living:
        yield living
