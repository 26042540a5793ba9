"""What tests of several parts share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bundle.making import MODULE


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
