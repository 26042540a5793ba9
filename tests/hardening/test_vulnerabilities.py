"""Known vulnerabilities, by a file of Debian's security tracker."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest

from appliance_image.hardening.figures import AuditError, Mark
from appliance_image.hardening.vulnerabilities import Source, older, section, sources
from appliance_image.image.packages import Lock, Package

_SORTED = (
    "0.9",
    "1.0~rc1-1",
    "1.0",
    "1.0-0+deb13u1",
    "1.0-1",
    "1.0+b-1",
    "1.0.1-1",
    "1.2-1",
    "1.10-1",
    "2:0.1",
    "10:0.1",
)


def _package(name: str, version: str, source: str, *, use: str = "root") -> Package:
    return Package(name, version, "amd64", "0" * 64, 1, f"debian/pool/{name}.deb", (use,), *source.split())


_LOCK = Lock(
    datetime(2026, 1, 1, tzinfo=UTC),
    (
        _package("haproxy", "3.0.11-1+deb13u1", "haproxy 3.0.11-1+deb13u1"),
        _package("libssl3t64", "3.5.1-1+b2", "openssl 3.5.1-1"),
        _package("linux-image", "6.12.1-1", "linux-signed-amd64 6.12.1+1"),
        _package("mtools", "4.0-1", "mtools 4.0-1", use="tools"),
    ),
)


def _feed(tmp_path: Path, **releases: dict[str, Any]) -> Path:
    """Return a tracker's file; each keyword is a source package's one CVE in trixie."""
    tracker = {name: {"CVE-2026-1": {"releases": {"trixie": each}}} for name, each in releases.items()}
    path = tmp_path / "tracker.json"
    path.write_text(json.dumps(tracker))
    return path


def test_order_of_versions() -> None:
    """Versions sort as Debian Policy says."""
    for one, other in pairwise(_SORTED):
        assert older(one, other)
        assert not older(other, one)


def test_order_is_dpkgs() -> None:
    """The order is dpkg's, for every pair."""
    for one, other in product(_SORTED, repeat=2):
        done = subprocess.run(["dpkg", "--compare-versions", one, "lt", other], check=False)
        assert older(one, other) is (done.returncode == 0), (one, other)


def test_sources() -> None:
    """Packages of the root go by their source packages: without rebuilds, and kernels by what was signed."""
    assert sources(_LOCK.packages) == [
        Source("haproxy", "3.0.11-1+deb13u1"),
        Source("linux", "6.12.1-1"),
        Source("openssl", "3.5.1-1"),
    ]


def test_fix_is_missing(tmp_path: Path) -> None:
    """What Debian has fixed in a newer version is over the limit, and named with that version."""
    feed = _feed(tmp_path, openssl={"status": "resolved", "fixed_version": "3.5.1-1+deb13u1", "urgency": "high"})
    found = section(_LOCK, feed)
    assert [each.name for each in found.over] == [
        "fixed by Debian, not in the image",
        "CVE-2026-1 openssl 3.5.1-1",
    ]
    assert found.over[1].value == "fixed in 3.5.1-1+deb13u1"


def test_fixed_and_never_affected(tmp_path: Path) -> None:
    """A fix that the image has, and a version that never had the fault, are none."""
    feed = _feed(
        tmp_path,
        openssl={"status": "resolved", "fixed_version": "3.5.0-1", "urgency": "low"},
        haproxy={"status": "resolved", "fixed_version": "0", "urgency": "low"},
        mtools={"status": "resolved", "fixed_version": "9", "urgency": "low"},
    )
    assert section(_LOCK, feed).over == ()


def test_not_fixed(tmp_path: Path) -> None:
    """What Debian has not fixed is told, and counted by urgency."""
    feed = _feed(tmp_path, linux={"status": "open", "urgency": "medium", "nodsa": "Minor issue"})
    found = section(_LOCK, feed)
    assert found.over == ()
    (count,) = [each for each in found.figures if each.name == "not fixed by Debian"]
    assert (count.value, count.reason) == ("1", "1 medium")
    assert "Minor issue" in found.figures[-1].reason


def test_nothing_looked_up(tmp_path: Path) -> None:
    """Without a feed, or without the packages, the figure is unknown: never none."""
    feed = _feed(tmp_path, linux={"status": "open", "urgency": "low"})
    for lock, given, word in ((_LOCK, None, "no feed given"), (None, feed, "not known")):
        (figure,) = section(lock, given).figures
        assert (figure.mark, figure.value) == (Mark.UNKNOWN, "")
        assert word in figure.reason


def test_known_when_built(tmp_path: Path) -> None:
    """Without a feed, what a build has found is told, with what it was found by; a build that did not look is none."""
    built = tmp_path / "vulnerabilities.json"
    built.write_text(json.dumps({"feed": "trixie", "found": {"CVE-2026-1": ["linux"]}}))
    (figure,) = section(_LOCK, None, built).figures
    assert (figure.mark, figure.value) == (Mark.TOLD, "1")
    built.write_text(json.dumps({"feed": None, "text": "not looked for"}))
    (figure,) = section(_LOCK, None, built).figures
    assert figure.mark is Mark.UNKNOWN
    built.write_text("[]")
    with pytest.raises(AuditError, match="a build has found"):
        section(_LOCK, None, built)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"a": 1}', '{"a": {"CVE-1": {"releases": {"trixie": {}}}}}', '{"a": {"C": {"releases": {}}}}'],
)
def test_no_tracker(tmp_path: Path, text: str) -> None:
    """A file that is none of the tracker's, or knows nothing of this release, is refused."""
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(AuditError, match=r"x\.json"):
        section(_LOCK, tmp_path / "x.json")
