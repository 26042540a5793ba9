"""The modules of this repository and the wheel of oxidd, put into the root; all of Python's modules compiled."""

from __future__ import annotations

import ast
import hashlib
import io
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from appliance_image.image.errors import ImageError, LackingError
from appliance_image.image.places import PROJECT
from appliance_image.image.workshop import Workshop

PARTS = ("appliance_image.agent", "appliance_image.bundle", "appliance_image.journal", "appliance_image.management")
"""Packages that are there whole; of the rest of the repository, only what they import."""
PACKAGES = ("appliance_image", "netpolicy", "ids_rules")
WHEELS = ("oxidd", "typing-extensions")
"""What the proof needs, and that needs."""
PROVIDED = frozenset({"oxidd", "nftables"})
"""Modules of others that the image has."""
SITE = "usr/lib/python3/dist-packages"

_COMPILED = Path(__file__).with_name("compiled.py")
_ENTRY = """\
#!/usr/bin/python3 -I
from appliance_image.agent.__main__ import main

raise SystemExit(main())
"""
_STDLIB_GONE = (
    "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tkinter", "turtledemo", "unittest", "venv", "sqlite3",
    "dbm", "curses", "wsgiref", "xmlrpc", "__phello__", "distutils", "turtle.py", "pydoc.py", "doctest.py", "pdb.py",
    "cProfile.py", "profile.py", "imaplib.py", "poplib.py", "smtplib.py", "ftplib.py", "nntplib.py", "telnetlib.py",
    "webbrowser.py", "antigravity.py", "this.py", "zipapp.py", "mailbox.py", "config-*", "_pyrepl",
    "lib-dynload/_sqlite3*", "lib-dynload/_curses*", "lib-dynload/*dbm*", "lib-dynload/readline*",
)  # fmt: skip


def needed(tree: Path = PROJECT, parts: Iterable[str] = PARTS) -> dict[str, Path]:
    """Return the repository's modules that an appliance runs, by their path below site-packages.

    Followed are the imports of `parts`, wherever in a module they stand (not those for type checkers only).

    Raises:
        ImageError: One imports, on being imported, what an appliance does not have.

    """
    found: dict[str, Path] = {}
    waiting = []
    for part in parts:
        directory = tree / part.replace(".", "/")
        waiting += [_name(path, tree) for path in sorted(directory.rglob("*.py"))]
    for part in {part.partition(".")[0] for part in parts}:
        waiting.append(part)
    while waiting:
        name = waiting.pop()
        path = _file(tree, name)
        if path is None or str(path.relative_to(tree)) in found:
            continue
        found[str(path.relative_to(tree))] = path
        if "." in name:
            waiting.append(name.rpartition(".")[0])
        for wanted, at_once in _imports(path, name):
            top = wanted.partition(".")[0]
            if top in PACKAGES:
                waiting += [wanted, wanted.rpartition(".")[0]] if "." in wanted else [wanted]
            elif at_once and top not in sys.stdlib_module_names and top not in PROVIDED:
                raise ImageError(f"{path.relative_to(tree)} imports {top}, which an appliance does not have")
    return dict(sorted(found.items()))


def install(root: Path, wheels: Iterable[Path], shop: Workshop) -> list[str]:
    """Put the repository's modules and the wheels into the root, and compile all of Python's modules there.

    Returns:
        The modules of this repository.

    """
    site = root / SITE
    modules = needed()
    for relative, path in modules.items():
        target = site / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    for each in wheels:
        _unpack(each, site)
    entry = root / "usr/lib/netpolicy/agent"
    entry.parent.mkdir(parents=True, exist_ok=True)
    entry.write_text(_ENTRY)
    entry.chmod(0o755)
    library = next((root / "usr/lib").glob("python3.*"))
    for pattern in _STDLIB_GONE:
        for path in library.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    inside = "/work/" + str(root.relative_to(shop.work))
    # On standard input, since it is not in the tools' root; not with -I, which would ignore PYTHONHASHSEED.
    trees = (f"{inside}/usr/lib/{library.name}", f"{inside}/{SITE}")
    shop.run("python3", "-s", "-P", "-B", "-", inside, *trees, stdin=_COMPILED.read_bytes())
    return list(modules)


def _unpack(wheel: Path, site: Path) -> None:
    """Unpack a wheel."""
    with zipfile.ZipFile(wheel) as content:
        for member in content.infolist():
            target = site / member.filename
            if ".." in target.parts:
                raise ImageError(f"{wheel}: {member.filename} leads out of it")
            if not member.is_dir():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.read(member))
                target.chmod(0o644)


def wheel(name: str, cache: Path, *, offline: bool) -> Path:
    """Return a wheel for the image's Python that requirements.lock pins.

    Raises:
        LackingError: It cannot be had.

    """
    lock = (PROJECT / "requirements.lock").read_text("utf-8")
    entry = re.search(rf"^{name}==(\S+) \\\n((?: +--hash=\S+(?: \\)?\n)+)", lock, re.MULTILINE)
    if entry is None:
        raise ImageError(f"requirements.lock does not pin {name}")
    hashes = set(re.findall(r"sha256:([0-9a-f]{64})", entry[2]))
    cache.mkdir(parents=True, exist_ok=True)

    def held() -> Path | None:
        for path in sorted(cache.glob(f"{name.replace('-', '_')}-{entry[1]}-*.whl")):
            if hashlib.sha256(path.read_bytes()).hexdigest() in hashes:
                return path
        return None

    if (path := held()) is not None:
        return path
    if offline:
        raise LackingError(f"the cache lacks the wheel of {name} {entry[1]}: build once without --offline")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--only-binary=:all:", "--python-version", "3.13", "--implementation", "cp", "--abi", "abi3", "--abi", "cp313",
         "--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_17_x86_64",
         "--platform", "manylinux2014_x86_64", "--dest", str(cache), f"{name}=={entry[1]}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0 or (path := held()) is None:
        raise LackingError(f"the wheel of {name} {entry[1]} that requirements.lock pins cannot be had: {done.stderr}")
    return path


def _name(path: Path, tree: Path) -> str:
    """Return a module's name."""
    parts = path.relative_to(tree).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _file(tree: Path, name: str) -> Path | None:
    """Return a module's file, or None where the name is of something in a module."""
    base = tree / name.replace(".", "/")
    for path in (base / "__init__.py", base.with_name(base.name + ".py")):
        if path.is_file():
            return path
    return None


def _imports(path: Path, name: str) -> Iterator[tuple[str, bool]]:
    """Yield what a module imports, and whether it does so on being imported itself."""

    def walk(node: ast.AST, at_once: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            yield from ((each.name, at_once) for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                package = name if path.name == "__init__.py" else name.rpartition(".")[0]
                for _ in range(node.level - 1):
                    package = package.rpartition(".")[0]
                module = f"{package}.{module}".rstrip(".")
            yield module, at_once
            yield from ((f"{module}.{each.name}", at_once) for each in node.names)
        inner = at_once and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inner)

    yield from walk(ast.parse(path.read_text("utf-8")), at_once=True)


def archive(files: dict[str, bytes]) -> bytes:
    """Return a deterministic tar of files, sorted by name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as result:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            result.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
