"""The project's own source files, as the tests of the house's habits read them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("netpolicy", "ids_rules", "conformance", "appliance_image")


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, and where."""

    module: str
    line: int
    lazy: bool
    """Inside a function: it happens when that is called, if ever."""


def modules() -> dict[str, Path]:
    """Return the file of every module of the packages, by its dotted name."""
    found: dict[str, Path] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), path)


def imports(path: Path) -> Iterator[Import]:
    """Yield what a file imports at run time; a submodule under its own name, not its package's."""
    yield from _imports(tree(path), lazy=False)


def _imports(node: ast.AST, *, lazy: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                continue
            case ast.Import(names=names):
                yield from (Import(name.name, child.lineno, lazy) for name in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = "." * level + (module or "")
                for name in names:
                    submodule = f"{base}.{name.name}"
                    yield Import(submodule if submodule in modules() else base, child.lineno, lazy)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                yield from _imports(child, lazy=True)
            case _:
                yield from _imports(child, lazy=lazy)
