"""What tests of several parts share."""

from __future__ import annotations

from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.bundle.making import MODULE

# What takes longest begins first, so that no worker is left alone with it at the end.
_LONGEST = ("tests/vm/", "tests/inspection/", "tests/ids/", "tests/topology/")
# Folders whose files share what takes long to make: one worker has all of each.
_TOGETHER = ("tests/vm/",)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what takes longest begin first."""
    items.sort(key=lambda item: next((i for i, part in enumerate(_LONGEST) if item.nodeid.startswith(part)), 99))


class _ByFile(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types
    """Each file, or folder of shared things, whole to one worker: fixtures of modules are made once."""

    def _split_scope(self, nodeid: str) -> str:
        return next((part for part in _TOGETHER if nodeid.startswith(part)), nodeid.partition("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _ByFile:
    """Schedule ``pytest -n`` by files (xdist's own groups do not work with pytest 9.2: it reads another attribute)."""
    return _ByFile(config, log)


@pytest.fixture
def softhsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of SoftHSM2's tokens, of which there are none yet."""
    if not MODULE.is_file():
        pytest.fail(f"{MODULE} is missing: install softhsm2 (make setup)")
    (tmp_path / "tokens").mkdir(mode=0o700)
    configuration = tmp_path / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {tmp_path / 'tokens'}\nobjectstore.backend = file\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(configuration))
    return tmp_path
