"""The JSON Schema that editors use."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from netpolicy.cli import main
from netpolicy.topology.json_schema import json_schema

_ROOT = Path(__file__).parents[2]


def _plain(value: Any) -> Any:
    """Return YAML's values as JSON has them: dates are texts."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.isoformat() if isinstance(value, date) else value


@pytest.fixture(name="topology")
def _topology() -> Any:
    return _plain(yaml.safe_load((_ROOT / "topology.yaml").read_text(encoding="utf-8")))


def _complaints(topology: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(json_schema()).iter_errors(topology)]


def test_the_schema_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    """What the command prints is a JSON Schema, draft 2020-12."""
    assert main(["schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    Draft202012Validator.check_schema(printed)
    assert printed == json_schema()


def test_a_valid_topology_fits(topology: Any) -> None:
    """An editor has nothing to say about topology.yaml, its templates included."""
    assert _complaints(topology) == []


@pytest.mark.parametrize(
    ("section", "entry", "key", "value"),
    [
        ("flows", "move-in-notice", "asurance", "terminate"),
        ("flows", "move-in-notice", "assurance", "terminated"),
        ("flows", "move-in-notice", "review", 7),
        ("services", "move-in", "ports", 0),
        ("segments", "backbone", "kind", "wire"),
        ("nodes", "business-server", "addresses", []),
    ],
)
def test_mistakes_do_not_fit(topology: Any, section: str, entry: str, key: str, value: object) -> None:
    """Unknown keys, choices, types and bounds are underlined by the editor already."""
    topology[section][entry][key] = value
    assert _complaints(topology)


def test_what_is_missing_does_not_fit(topology: Any) -> None:
    """A flow without a legal basis is underlined."""
    del topology["flows"]["move-in-notice"]["basis"]
    assert "'basis' is a required property" in _complaints(topology)


def test_every_key_is_described() -> None:
    """Each property has a description, which is what completion shows."""
    schema = json_schema()
    silent = [
        f"{name}.{key}"
        for name, definition in {"file": schema, **schema["$defs"]}.items()
        for key, each in definition.get("properties", {}).items()
        if not each.get("description")
    ]
    assert silent == []
