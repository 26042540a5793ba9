"""No program that decides or tells anything inherits an environment."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.lab.namespace import Namespace
from conformance.lab.reaper import Reaper
from netpolicy.environment import ENVIRONMENT
from tests.docs.source import ROOT

_PLACES = ("netpolicy", "conformance", "ids_rules", *(f"appliance_image/{each}" for each in ("agent", "bundle")))
_STARTS = {"run", "Popen", "call", "check_call", "check_output"}
_CHILDREN = {"netpolicy/proof/frame_lister.py"}
"""Run by what has an environment of its own, for its own children."""


def _without(path: Path) -> Iterator[int]:
    """Yield the lines of calls of subprocess that say no environment."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _STARTS:
            module = node.func.value
            given = {each.arg for each in node.keywords}
            if isinstance(module, ast.Name) and module.id == "subprocess" and not given & {"env", None}:
                yield node.lineno


def test_every_program_has_an_environment() -> None:
    """Whoever starts a program says what its whole environment is."""
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for place in _PLACES
        for path in sorted((ROOT / place).rglob("*.py"))
        if str(path.relative_to(ROOT)) not in _CHILDREN
        for line in _without(path)
    ]
    assert not found


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces are made as root")
def test_programs_of_the_lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is set around a lab does not come into its programs, nor which of two programs of a name is run."""
    fake = tmp_path / "nft"
    fake.write_text(f"#!/bin/sh\ntouch {tmp_path}/run\n", encoding="utf-8")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin")
    monkeypatch.setenv("HAPROXY_SECRET", "x")
    with Reaper() as reaper:
        namespace = Namespace("one", reaper)
        said = namespace.run(["env"], timeout=10)
        listed = namespace.run(["nft", "list", "ruleset"], timeout=10)
        namespace.close()
    assert dict(line.split("=", 1) for line in said.stdout.splitlines()) == dict(ENVIRONMENT)
    assert listed.returncode == 0
    assert not (tmp_path / "run").exists()
