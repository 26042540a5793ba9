"""The test image, and the tools it is made with."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance_image.image.workshop import Workshop, workshop
from tests.image.built import image_for_tests, lock_for_tests, tools_for_tests


@pytest.fixture(scope="session")
def image() -> Path:
    """Return the directory of the test image."""
    return image_for_tests()


@pytest.fixture(scope="session")
def manifest(image: Path) -> Any:
    """Return its manifest."""
    return json.loads((image / "image.json").read_text())


@pytest.fixture(scope="session")
def root(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what is in its root."""
    into = tmp_path_factory.mktemp("root")
    Workshop(tools_for_tests(), into, lock_for_tests().epoch, ((image, "/run"),)).run(
        "fsck.erofs", "--extract=/work/root", "/run/root.erofs"
    )
    return into / "root"


@pytest.fixture
def shop() -> Iterator[Workshop]:
    """Yield the tools, with an empty directory."""
    with workshop(tools_for_tests(), lock_for_tests().epoch) as found:
        yield found


def openssl(*argv: str | Path) -> str:
    """Run openssl and return what it prints."""
    return subprocess.run(["openssl", *argv], check=True, capture_output=True, text=True).stdout


def pair(directory: Path, subject: str, kind: str = "rsa:2048", *more: str) -> tuple[Path, Path]:
    """Return a new key and its own certificate."""
    key, certificate = directory / "key", directory / "pem"
    openssl(
        *("req", "-x509", "-newkey", kind, *more, "-nodes", "-subj", subject, "-days", "2"),
        *("-keyout", key, "-out", certificate),
    )
    return key, certificate
