"""From a verified bundle to files."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from appliance_image.bundle.model import Verified


def unpack(verified: Verified, directory: Path) -> None:
    """Write the files of a bundle, and its manifest, into a directory that appears as a whole or not at all.

    Args:
        verified: The files are written from the very bytes that were verified.
        directory: Must not exist, or be empty. It gets the files by their path, without ``files/``.

    Raises:
        OSError: It cannot be written, or is not empty.

    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        tree = stage / "tree"
        tree.mkdir(mode=0o755)
        for path, content in {**verified.bundle.files, "manifest.json": verified.bundle.manifest_json}.items():
            target = tree / path
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            with target.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        tree.rename(directory)
        _sync(directory.parent)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
