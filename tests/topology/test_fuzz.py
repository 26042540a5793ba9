"""Whatever stands in a topology, the answer is a topology or a list of what is wrong: never a traceback."""

from __future__ import annotations

import copy
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netpolicy.diagnostics import Diagnostic, InputError
from netpolicy.intent.check import check_topology
from netpolicy.intent.derive import derive_intents
from netpolicy.nftables.ruleset import emit_ruleset

_ROOT = Path(__file__).parents[2]
_TEXT = (_ROOT / "topology.yaml").read_text(encoding="utf-8")
_TREE = yaml.safe_load(_TEXT)
_TABLES = ("municipalities.csv", "prefectures.csv")
_SETTINGS = settings(deadline=None, max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 70000),
    st.dates(date(2000, 1, 1), date(2050, 1, 1)),
    st.text(max_size=20),
    st.sampled_from(
        [
            "tokyo",
            "tachikawa-cs",
            "same",
            "10.13.1.0/24",
            "10.13.1.1",
            "fd00::/64",
            "{id}",
            "terminate",
            "lan",
            "external",
        ]
    ),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def _judge(text: str, tables: dict[str, str] | None = None) -> None:
    """Check a topology, and emit its rulesets if it is valid."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "topology.yaml")
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        for name in _TABLES:
            content = (tables or {}).get(name) or (_ROOT / name).read_text(encoding="utf-8")
            Path(directory, name).write_text(content, encoding="utf-8")
        diagnostics: tuple[Diagnostic, ...] = ()
        try:
            for intent in derive_intents(check_topology(path).topology).values():
                emit_ruleset(intent)
        except InputError as refused:
            diagnostics = refused.diagnostics
        else:
            return
        assert diagnostics
        for found in diagnostics:
            assert Path(found.place.file).parent == Path(directory)
            assert found.place.line >= 1
            assert found.place.column >= 1
            assert str(found).isprintable()


def _has(tree: Any, step: Any) -> bool:
    if isinstance(tree, dict):
        return step in tree
    return isinstance(tree, list) and isinstance(step, int) and step < len(tree)


def _paths(tree: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value of a tree."""
    found = [here] if here else []
    if isinstance(tree, dict):
        for key, value in tree.items():
            found.extend(_paths(value, (*here, key)))
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            found.extend(_paths(value, (*here, number)))
    return found


@_SETTINGS
@given(st.lists(st.tuples(st.sampled_from(_paths(_TREE)), _VALUES), min_size=1, max_size=3))
def test_any_value_anywhere(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    """Values of the wrong type, size or meaning are reported or harmless."""
    tree = copy.deepcopy(_TREE)
    for path, value in changes:
        above = tree
        for step in path[:-1]:
            if not _has(above, step):
                break  # an earlier change has cut it off
            above = above[step]
        else:
            if _has(above, path[-1]):
                above[path[-1]] = value
    _judge(yaml.safe_dump(tree, allow_unicode=True, sort_keys=False))


@_SETTINGS
@given(
    st.integers(0, len(_TEXT)), st.integers(0, 40), st.text(max_size=10) | st.sampled_from("{}[]:,&*!|>'\"%@`#-?\n\t")
)
def test_any_text_anywhere(at: int, removed: int, inserted: str) -> None:
    """A slip of the editor is reported or harmless."""
    _judge(_TEXT[:at] + inserted + _TEXT[at + removed :])


@_SETTINGS
@given(st.data())
def test_any_table(data: st.DataObject) -> None:
    """A slip in a table is reported or harmless."""
    name = data.draw(st.sampled_from(_TABLES))
    text = (_ROOT / name).read_text(encoding="utf-8")
    at = data.draw(st.integers(0, len(text)))
    inserted = data.draw(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
        | st.sampled_from([",", '"', "\n", "\r", "\0", "{id}"])
    )
    _judge(_TEXT, {name: text[:at] + inserted + text[at + data.draw(st.integers(0, 12)) :]})


@_SETTINGS
@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    """Bytes that are no topology at all are reported."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "topology.yaml")
        path.write_bytes(content)
        with pytest.raises(InputError):
            check_topology(path)


def test_size_is_bounded(tmp_path: Path) -> None:
    """A file over the bound is refused before it is parsed."""
    path = tmp_path / "topology.yaml"
    path.write_text("#" * (1 << 20) + "\n")
    with pytest.raises(InputError, match=r"topology\.yaml:1:1: error: .* is larger than 1048576 bytes"):
        check_topology(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A directory, or nothing, is no topology."""
    with pytest.raises(InputError, match="Is a directory"):
        check_topology(tmp_path)
    with pytest.raises(InputError, match="No such file"):
        check_topology(tmp_path / "none.yaml")
