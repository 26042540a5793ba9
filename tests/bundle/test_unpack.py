"""From a verified bundle to files."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance_image.bundle import unpack
from tests.bundle.making import ONE, Site


def test_files_are_those_that_were_verified(site: Site, tmp_path: Path) -> None:
    """Every file is there, byte for byte, and the manifest beside them; nothing else is."""
    verified = site.verify(site.signed(ONE, [site.person("sato")]))
    out = tmp_path / "run" / "bundle"
    unpack(verified, out)
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert found == {**verified.bundle.files, "manifest.json": verified.bundle.manifest_json}
    assert found["nftables.nft"] == (site.build / ONE / "nftables.nft").read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]


def test_never_half(site: Site, tmp_path: Path) -> None:
    """What cannot be written whole is not there at all, and what was there stays."""
    verified = site.verify(site.signed(ONE, [site.person("sato")]))
    out = tmp_path / "bundle"
    out.mkdir()
    (out / "other").touch()
    with pytest.raises(OSError, match="not empty"):
        unpack(verified, out)
    assert [path.name for path in out.iterdir()] == ["other"]
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "trust"}
