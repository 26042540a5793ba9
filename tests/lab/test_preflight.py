"""The preflight: what a machine lacks is named, never guessed and never ignored."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conformance.lab import preflight
from conformance.lab.preflight import CLIENTS, LAB, Missing, missing
from netpolicy.environment import ENVIRONMENT

_ROOT = Path(__file__).parents[2]
_PRINT = "from conformance.lab.preflight import missing\nfor each in missing(): print(each)"


def test_tools_that_are_not_on_path_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each missing program is named with its Debian package and what needs it."""
    monkeypatch.setattr(preflight, "ENVIRONMENT", {**ENVIRONMENT, "PATH": str(tmp_path)})
    found = {each.capability: each for each in missing()}
    assert found["program nft"] == Missing("program nft", "not on PATH; Debian package nftables", LAB)
    assert found["program sysctl"].needed_for == LAB


def test_packages_of_one_stage_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing package that only the real clients need does not stand in the way of the rest."""
    monkeypatch.setattr(preflight, "find_spec", lambda name: None if name == "telnetlib3" else object())
    (lacking,) = missing()
    assert (lacking.capability, lacking.needed_for) == ("Python module telnetlib3", CLIENTS)


def test_an_old_nft_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A version of nft before the oldest that is known to do is reported with what it says of itself."""
    old = tmp_path / "nft"
    old.write_text('#!/bin/sh\necho "nftables v0.9.8 (E.D.S.)"\n')
    old.chmod(0o755)
    monkeypatch.setattr(preflight, "ENVIRONMENT", {**ENVIRONMENT, "PATH": f"{tmp_path}:{ENVIRONMENT['PATH']}"})
    assert "nft 1.0.6 or later (needed for lab): 'nft --version' says 'nftables v0.9.8 (E.D.S.)'" in map(str, missing())


@pytest.mark.usefixtures("able")
def test_what_the_kernel_refuses_is_named_with_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that the kernel or nft refuses gives the capability and the tool's message, and the others still run."""
    trials = (
        preflight._Trial("a kind of device", LAB, preflight._device("trial9", "type", "nonsense")),
        preflight._Trial("an expression", LAB, preflight._rule("nonsense drop")),
        preflight._Trial("nothing special", LAB, preflight._rule("counter drop")),
    )
    monkeypatch.setattr(preflight, "_TRIALS", trials)
    found = {each.capability: each.reason for each in missing()}
    assert set(found) == {"a kind of device", "an expression"}
    assert "nonsense" in found["a kind of device"]
    assert "syntax error" in found["an expression"]


def test_a_kernel_clock_in_another_zone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel computes service hours in its own zone, so one other than UTC is something missing."""
    monkeypatch.setattr(preflight, "kernel_timezone", lambda: -540)
    found = {each.capability: each.reason for each in missing()}
    assert "-540 minutes" in found["kernel time zone UTC"]


@pytest.mark.usefixtures("able")
def test_without_the_rights_namespaces_are_named() -> None:
    """A process without CAP_SYS_ADMIN is told that it may not make namespaces, instead of a traceback."""
    drop = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]
    done = subprocess.run(
        [*drop, sys.executable, "-c", _PRINT], cwd=_ROOT, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.stderr == ""
    assert "namespaces (root, or CAP_SYS_ADMIN and CAP_NET_ADMIN)" in done.stdout.splitlines()[0]
    assert "Operation not permitted" in done.stdout.splitlines()[0]
