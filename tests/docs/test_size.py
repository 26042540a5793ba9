"""Files and functions stay small enough to be read in one go."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.docs.source import PACKAGES, ROOT, tree

_FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for directory in (*PACKAGES, "tests", "benchmarks", "tools")
    for path in (ROOT / directory).rglob("*.py")
)
MOST_LINES_OF_FILE, MOST_LINES_OF_FUNCTION = 500, 60


@pytest.mark.parametrize("file", _FILES)
def test_small(file: str) -> None:
    """No file has more than 500 lines, and no function more than 60."""
    path = Path(ROOT, file)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES_OF_FILE
    long = [
        f"{node.name}, line {node.lineno}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= MOST_LINES_OF_FUNCTION
    ]
    assert long == []
