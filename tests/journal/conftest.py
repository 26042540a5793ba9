"""Journals to test with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from appliance_image.journal import Journal
from appliance_image.journal.keys import new_key, public_key
from appliance_image.journal.store import LEAST_SEGMENT_BYTES

Clock = Callable[[], datetime]


def steady() -> Clock:
    """Return a clock that is a second later each time it is asked."""
    seconds = count()
    return lambda: datetime(2026, 4, 1, tzinfo=UTC) + timedelta(seconds=next(seconds))


@dataclass(frozen=True)
class Keys:
    """A key for checkpoints."""

    private: Path
    public: Path


def make_keys(directory: Path, name: str = "checkpoint") -> Keys:
    keys = Keys(directory / f"{name}.key", directory / f"{name}.pem")
    new_key(keys.private)
    keys.public.write_bytes(public_key(keys.private))
    return keys


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Return the key of the tests' journals."""
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def sealed(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Path:
    """Return a journal of three segments with some checkpoints; to be copied."""
    directory = tmp_path_factory.mktemp("sealed") / "journal"
    journal = Journal.open(directory, key=keys.private, every=16, segment_bytes=LEAST_SEGMENT_BYTES, clock=steady())
    for number in range(140):
        journal.append(
            "apply", {"number": number, "text": "適用 " + "x" * 4000, "done": True, "interfaces": ["a", "b"]}
        )
    journal.checkpoint()
    assert len(list(directory.glob("*.jsonl"))) == 3
    return directory


@pytest.fixture
def copy(sealed: Path, tmp_path: Path) -> Path:
    """Return a copy of the sealed journal that may be harmed."""
    return shutil.copytree(sealed, tmp_path / "journal")
