"""The units: each stage only after the one before it did well, and nothing of Debian's in their place."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

import appliance_image.agent
from appliance_image.agent import services, stages
from appliance_image.agent.daemons import START_SECONDS
from tests.image.built import tools_for_tests

UNITS = Path(appliance_image.agent.__file__).parent / "units"


def _read(name: str) -> str:
    return (UNITS / name).read_text(encoding="utf-8")


def _section(name: str, section: str) -> dict[str, list[str]]:
    """Return the settings of a section; systemd lets them stand more than once."""
    found: dict[str, list[str]] = {}
    inside = ""
    for line in _read(name).splitlines():
        if line.startswith("["):
            inside = line.strip("[]")
        elif inside == section and "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_order() -> None:
    """Every stage demands that the one before it did well, without beginning it again, and comes after it."""
    order = list(stages.STAGES)
    for before, stage in pairwise(order):
        unit = _section(f"netpolicy-{stage}.service", "Unit")
        assert unit["Requisite"] == unit["After"] == [f"netpolicy-{before}.service"]
        assert "Requires" not in unit
    for stage in order:
        service = _section(f"netpolicy-{stage}.service", "Service")
        assert service["ExecStart"] == [f"/usr/bin/python3 -I -m appliance_image.agent boot {stage}"]
        assert service["RemainAfterExit"] == ["yes"]
        assert "Restart" not in service


def test_engines_that_end_close() -> None:
    """However an engine ends, forwarding ends; it and the relay are begun again by the agent alone."""
    revive = f"-+/usr/bin/systemctl restart --no-block {services.REVIVAL}"
    engine, relay = (_section(name, "Service") for name in ("netpolicy-engine@.service", services.RELAY))
    assert engine["ExecStopPost"] == [f"+/usr/bin/systemctl stop --no-block {services.FORWARD}", revive]
    assert relay["ExecStopPost"] == [revive]
    assert not {"Restart", "RestartSec"} & (set(engine) | set(relay))
    assert "boot stop-forwarding" in _section(services.FORWARD, "Service")["ExecStop"][0]


def test_revival_does_not_hang() -> None:
    """What begins daemons again is ended when it takes too long, which lets go of its lock, and begun anew."""
    service = _section(services.REVIVAL, "Service")
    assert service["Restart"] == ["on-failure"]
    assert int(service["RuntimeMaxSec"][0]) > START_SECONDS
    assert _section(services.REVIVAL, "Unit")["StartLimitIntervalSec"] == ["0"]


def test_trials_end() -> None:
    """The unit that ends a trial is begun again when it is killed."""
    assert _section(services.EXPIRY, "Service")["Restart"] == ["on-failure"]
    assert _section(services.EXPIRY, "Unit")["StartLimitIntervalSec"] == ["0"]


def test_target_wants_all_stages() -> None:
    """The target pulls every stage in, and what is pulled in is there."""
    wanted = {each for line in _section("netpolicy.target", "Unit")["Wants"] for each in line.split()}
    assert {f"netpolicy-{stage}.service" for stage in stages.STAGES} <= wanted
    assert all((UNITS / name).exists() for name in wanted)
    assert not any("nftables.service" in path.read_text(encoding="utf-8") for path in UNITS.iterdir())


@pytest.fixture(scope="module")
def analyze() -> list[str]:
    """Return the command of an appliance's systemd-analyze: Debian 12's does not know all that Debian 13's does."""
    root = tools_for_tests()
    libraries = f"{root}/usr/lib/x86_64-linux-gnu:{root}/usr/lib/x86_64-linux-gnu/systemd"
    loader = str(root / "usr/lib64/ld-linux-x86-64.so.2")
    return [loader, "--library-path", libraries, str(root / "usr/bin/systemd-analyze")]


@pytest.mark.parametrize("path", sorted(UNITS.glob("*.service")), ids=lambda path: path.name)
def test_systemd_takes_it(path: Path, analyze: list[str]) -> None:
    """The systemd of an appliance knows every setting of a unit."""
    done = subprocess.run([*analyze, "verify", str(path)], capture_output=True, text=True, check=False)
    assert "error while loading" not in done.stderr
    said = [line for line in done.stderr.splitlines() if path.name.partition("@")[0] in line]
    assert [line for line in said if "Unknown" in line or "Failed to parse" in line] == []


def test_no_setting_stands_twice() -> None:
    """What would be overridden is a mistake, but for lists."""
    lists = {"SystemCallFilter", "Wants", "After", "DeviceAllow", "CapabilityBoundingSet", "BindPaths", "ExecStopPost"}
    for path in UNITS.glob("*.service"):
        twice = {key for key, values in _section(path.name, "Service").items() if len(values) > 1} - lists
        assert twice == set(), path.name
