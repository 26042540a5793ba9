"""A root that an audit finds nothing in, and the tools that audits run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance_image.hardening.tools import tools
from appliance_image.image.places import PROJECT
from appliance_image.image.workshop import Workshop

UNITS = tuple(PROJECT / "appliance_image" / part / "units" for part in ("agent", "image", "management"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a root with the appliance's own units and settings, a program, and nobody who may log in."""
    place = tmp_path / "root"
    for units in UNITS:
        shutil.copytree(units, place / "usr/lib/systemd/system", dirs_exist_ok=True)
    for directory in ("usr/bin", "usr/sbin", "etc", "usr/lib/sysctl.d"):
        (place / directory).mkdir(parents=True, exist_ok=True)
    (place / "usr/bin/python3.13").write_bytes(b"\x7fELF")
    (place / "usr/bin/python3.13").chmod(0o755)
    (place / "etc/passwd").write_text("root:x:0:0::/root:/usr/sbin/nologin\n")
    (place / "etc/shadow").write_text("root:!*:::::::\n")
    settings = PROJECT / "appliance_image/image/files/usr/lib/sysctl.d/90-netpolicy.conf"
    shutil.copyfile(settings, place / "usr/lib/sysctl.d/90-netpolicy.conf")
    shutil.copytree(PROJECT / "appliance_image/image/files/usr/lib/netpolicy", place / "usr/lib/netpolicy")
    for path in place.rglob("*"):
        path.chmod(0o755 if path.is_dir() else path.stat().st_mode & 0o755)
    return place


@pytest.fixture
def shop(root: Path) -> Iterator[Workshop]:
    """Yield the tools; they see the root."""
    with tools(root) as found:
        yield found
