"""What other people's tools say about the rules: suricata-check, and the language server in its batch mode."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from conformance.lab.rooted import Mount, Root
from ids_rules.lock import SidLock
from netpolicy.build import compile_files
from netpolicy.topology.load import load_topology

ROOT = Path(__file__).parents[2]
FIREWALL = "tachikawa-municipal-fw"

_NOT_HERE = {
    "S000": "a forbidden protocol is forbidden in both directions; decoder events have none",
    "S013": "each flow has its variables, in the configuration that is compiled with the rules",
    "S020": "a protocol, a flag, a count or an event is the whole of the condition",
    "S021": "the engine's own choice; the contents are single bytes at known offsets",
    "S030": "a protocol in the header does not match before its parser has a transaction",
    "S120": "(DESCRIPTION= and +OK are more readable than their octets",
    "S121": "the same in pcre",
    "S123": "the same in pcre",
    "S210": "fields of binary headers, each at its own offset",
    "S211": "the same",
    "S212": "the same",
    "S232": "nocase stands at the content that it is about",
    "S400": "NETWORK FLOW DESCRIPTION is our order; there are no categories beside the classtype",
    "S402": "an address that is unknown is not a vague word",
    "S406": "the name of an event, such as ipv4.pkt_too_small, is no domain",
    "S600": "a QUIC header is known by single bits of its first byte",
    "S802": "measured for all of them together, in benchmarks/inline.py",
}
"""Why what suricata-check recommends is not what is wanted."""
_BOTH_SIDES = "Rule inspect server and client side, consider adding a flow keyword"
_WARNING = 2


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    """Return what the topology of the repository compiles to, for one firewall whose flows have both assurances."""
    return compile_files(load_topology(ROOT / "topology.yaml").topology, SidLock())


def test_suricata_check(files: dict[str, str], tmp_path: Path) -> None:
    """Nothing but what is said above not to be wanted, and each of that is still said by it."""
    (tmp_path / "netpolicy.rules").write_text(files[f"{FIREWALL}/suricata/netpolicy.rules"], encoding="utf-8")
    program = Path(sys.executable).with_name("suricata-check")
    argv = [str(program), "--rules", str(tmp_path / "netpolicy.rules"), "--out", str(tmp_path)]
    subprocess.run(argv, capture_output=True, timeout=120, check=True)
    found = [json.loads(line) for line in (tmp_path / "suricata-check.jsonl").read_text().splitlines()]
    assert len(found) > 100
    assert {issue["code"] for rule in found for issue in rule["issues"]} == set(_NOT_HERE)


def test_language_server(files: dict[str, str]) -> None:
    """No error, and no warning but that rules look at both directions, which they must."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        said = list(_batch(files, Path(directory)))
    assert len(said) > 100
    assert {each["message"] for each in said if each["severity"] <= _WARNING} == {_BOTH_SIDES}


def test_language_server_sees_errors(files: dict[str, str]) -> None:
    """It has run at all: with one keyword misspelt, it says so."""
    path = f"{FIREWALL}/suricata/netpolicy.rules"
    wrong = files | {path: files[path].replace("app-layer-protocol:smtp", "app-layer-protcol:smtp")}
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        assert any(each["severity"] < _WARNING for each in _batch(wrong, Path(directory)))


def _batch(files: dict[str, str], work: Path) -> Iterator[dict[str, Any]]:
    """Yield what the language server says, with Suricata run from its root, and the variables that it is to have."""
    root = Root.find()
    assert root is not None, "make setup"
    suricata = work / "suricata"
    shared = Mount(work.parent, str(work.parent), writable=True)  # the root has no other directory of this name
    command = root.command(["/usr/bin/suricata"], [shared])
    suricata.write_text(f"#!{sys.executable}\n{_WRAPPER.format(command=command)}", encoding="utf-8")
    suricata.chmod(0o755)
    settings = yaml.safe_load(files[f"{FIREWALL}/suricata/suricata.yaml"])
    wanted = {name: settings[name] for name in ("vars", "app-layer")} | {
        "engine-analysis": {"rules-fast-pattern": True, "rules": True},
        # It reads what Suricata says in this form only.
        "logging": {"default-log-level": "warning", "outputs": [{"console": {"enabled": True, "type": "json"}}]},
    }
    (work / "suricata.yaml").write_text("%YAML 1.1\n---\n" + yaml.safe_dump(wanted), encoding="utf-8")
    (work / "netpolicy.rules").write_text(files[f"{FIREWALL}/suricata/netpolicy.rules"], encoding="utf-8")
    argv = [
        *(str(Path(sys.executable).with_name("suricata-language-server")), "--error-on-warning"),
        *("--batch-file", str(work / "netpolicy.rules"), "--suricata-binary", str(suricata)),
        *("--suricata-config", str(work / "suricata.yaml")),
    ]
    environment = {"TMPDIR": str(work), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=environment)
    for line in done.stdout.splitlines():
        yield json.loads(line)


_WRAPPER = """
import os, sys
command = {command!r}
os.execv(command[0], [*command, *sys.argv[1:]])
"""
