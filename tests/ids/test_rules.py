"""Rules as Suricata itself reads them, and their numbers over a whole network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conformance.lab.rooted import Root
from ids_rules.lock import SidLock
from netpolicy.build import compile_files
from netpolicy.rooted.engine import dry_run
from netpolicy.topology.load import load_topology

ROOT = Path(__file__).parents[2]
_RULE = re.compile(r"^(alert|drop) .*; sid:(\d+); rev:\d+; metadata:.*;\)$")


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    """Return what the topology of the repository compiles to."""
    return compile_files(load_topology(ROOT / "topology.yaml").topology, SidLock())


def _rules(files: dict[str, str]) -> list[str]:
    texts = [text for name, text in files.items() if name.endswith("netpolicy.rules")]
    return [line for text in texts for line in text.splitlines() if line and not line.startswith("#")]


def test_every_rule_is_complete(files: dict[str, str]) -> None:
    """Each has all that a reader of its alert needs."""
    rules = _rules(files)
    assert len(rules) > 2000
    for rule in rules:
        assert _RULE.match(rule), rule
        for part in (
            "msg:",
            "classtype:",
            "target:",
            "reference:url,",
            "metadata:attack_target ",
            ", firewall ",
            "mitre_technique_id T",
        ):
            assert part in rule, rule
        for fact in ("signature ", "created_at ", "updated_at "):
            assert fact in rule, rule
        if ", flow " in rule:
            assert ", basis " in rule, rule


def test_numbers_are_unique_over_the_network(files: dict[str, str]) -> None:
    """No two firewalls share a number: an alert says which one it was."""
    sids = [match.group(2) for rule in _rules(files) if (match := _RULE.match(rule))]
    assert len(sids) == len(set(sids))


def test_suricata_takes_every_configuration(files: dict[str, str], tmp_path: Path) -> None:
    """Suricata -T, in IPS mode and with every doubt an error, for every engine of the network."""
    root = Root.find()
    assert root is not None, "make setup"
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    engines = sorted(tmp_path.glob("*/suricata/engine-*.yaml"))
    assert len(engines) > len(list(tmp_path.glob("*/suricata")))
    for engine in engines:
        assert dry_run(root, engine.parent, engine.stem.removeprefix("engine-")) == []
