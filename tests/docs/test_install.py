"""The package as ``pip install .`` would install it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from tests.docs.source import PACKAGES, ROOT

_PACKAGE = "netpolicy"


def _closure(name: str) -> set[str]:
    """Return the distributions that installing `name` without extras brings, itself included."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found.add(current)
        for line in distribution(current).requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the netpolicy command of a virtual environment with a wheel of this tree and what it requires, no more."""
    directory = tmp_path_factory.mktemp("plain")
    source = directory / "source"
    for part in PACKAGES:
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*build, str(directory), str(source)], check=True, timeout=120)
    (wheel,) = directory.glob("*.whl")
    environment = directory / "venv"
    venv.create(environment, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    for name in _closure(_PACKAGE) - {_PACKAGE}:
        for file in distribution(name).files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                target = packages / file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(file.locate())
    with ZipFile(wheel) as archive:
        archive.extractall(packages)
    command = environment / "bin" / _PACKAGE
    command.write_text(f"#!{environment}/bin/python\nimport sys\nfrom netpolicy.cli import main\nsys.exit(main())\n")
    command.chmod(0o755)
    return command


@pytest.mark.parametrize(
    ("arguments", "begins"),
    [
        (["--version"], "netpolicy "),
        (["check", str(ROOT / "topology.yaml")], ""),
        (["compile", str(ROOT / "topology.yaml"), "--out", "build"], "build: "),
        (["schema"], "{"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_plain_install(plain: Path, tmp_path: Path, arguments: list[str], begins: str) -> None:
    """A plain install, without extras, Debian packages or the source tree, is enough to check, compile and complete."""
    done = subprocess.run(
        [str(plain), *arguments], cwd=tmp_path, env={}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(begins)


def test_wheel_is_whole(plain: Path) -> None:
    """The wheel holds every module of the tree, the markers of typed packages, and the licence."""
    (packages,) = plain.parent.parent.glob("lib/python*/site-packages")
    for package in PACKAGES:
        expected = {path.relative_to(ROOT) for path in (ROOT / package).rglob("*") if path.suffix in {".py", ".typed"}}
        assert {path for path in expected if not (packages / path).is_file()} == set()
    assert list(packages.glob("netpolicy-*.dist-info/licenses/LICENSE"))
