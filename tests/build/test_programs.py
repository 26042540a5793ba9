"""What the engine and the relay say of a build themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from ids_rules import protocols
from ids_rules.lock import SidLock
from netpolicy.build import compile_files
from netpolicy.cli import main
from netpolicy.rooted import Root
from netpolicy.rooted.build import refusals
from netpolicy.topology.model import Assurance
from tests.lab.small import small_topology
from tests.topology.writing import write

_EDITS = {
    "": (),
    "an option that HAProxy does not know": ("core/relay/haproxy.cfg", "strict-sni", "strict-snis"),
    "a script that is none": ("core/relay/identity.lua", "local function element", "local function"),
    "a policy that Suricata does not know": ("edge/suricata/suricata.yaml", "drop-invalid: yes\n", "drop-invalid: ["),
    "a rule that Suricata does not take": ("edge/suricata/netpolicy.rules", "; sid:", "; contents:1; sid:"),
    "addresses that are none": ("edge/suricata/engine-wan.yaml", "10.77", "10.777"),
}

_NONE = protocols.Protocol("gopher-of-no-engine", "None", ("tcp",), "T1071")
"""That no engine has a parser for."""


@pytest.mark.parametrize("name", _EDITS)
def test_programs_refuse(name: str) -> None:
    """What the programs would not start with is told with its firewall; what is compiled they take."""
    root = Root.find()
    assert root is not None, "make setup"
    files = compile_files(small_topology("programs", Assurance.TERMINATE), SidLock())
    if not name:
        assert refusals(root, files) == []
        return
    path, old, new = _EDITS[name]
    assert old in files[path]
    said = refusals(root, {**files, path: files[path].replace(old, new)})
    assert said
    assert all(each.startswith(f"{path.split('/')[0]}: the ") for each in said)


def test_compile_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """``compile --verify`` writes what the programs take and nothing else, and names what is missing."""
    topology = tmp_path / "topology.yaml"
    write(topology)
    argv = ["compile", str(topology), "--out", str(tmp_path / "build"), "--verify"]
    monkeypatch.setattr(protocols, "RECOGNISED", (*protocols.RECOGNISED, _NONE))
    assert main(argv) == 1
    assert "-fw: the engine at " in capsys.readouterr().err
    assert not (tmp_path / "build").exists()
    monkeypatch.undo()
    assert main(argv) == 0
    assert (tmp_path / "build" / "manifest.json").exists()
    assert main([*argv, "--suricata", "7"]) == 3
    assert "Suricata 7 is missing" in capsys.readouterr().err
    monkeypatch.setenv("NETPOLICY_ROOT", str(tmp_path))
    assert main(argv) == 3
    assert "Suricata 8 and HAProxy are missing" in capsys.readouterr().err
