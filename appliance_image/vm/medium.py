"""The configuration disk: a file system of one bundle and one identity, made without root and without mounting."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from appliance_image.vm.errors import MachineError

LABEL = "NETPOLICY-CFG"
"""Of its file system: how an appliance knows it (at most eleven characters are kept of a FAT label, so ext4)."""
_IDENTITY = ("chain.pem", "key.pem", "crl.pem")
"""What an appliance takes of one: whom it trusts is in the bundle."""
_MEGABYTE = 1 << 20
_SECONDS = 60.0


def write_medium(path: Path, bundle: Path | None = None, identity: Path | None = None) -> None:
    """Write a configuration disk.

    Args:
        path: A new file.
        bundle: What is to run; without one the disk says nothing of it.
        identity: The directory of keys and certificates of that firewall, which no bundle holds.

    Raises:
        MachineError: mkfs.ext4 refuses, or a name is not one.

    """
    tree = path.with_name(f"{path.name}.tree")
    tree.mkdir()
    try:
        if bundle is not None:
            _copy(bundle, tree / bundle.name)
        if identity is not None:
            (tree / "identity").mkdir(mode=0o700)
            for name in _IDENTITY:
                if (identity / name).is_file():
                    _copy(identity / name, tree / "identity" / name)
        size = sum(each.stat().st_size for each in tree.rglob("*") if each.is_file())
        _make(path, tree, size)
    finally:
        for each in sorted(tree.rglob("*"), reverse=True):
            each.rmdir() if each.is_dir() else each.unlink()
        tree.rmdir()


def _make(path: Path, tree: Path, content: int) -> None:
    with path.open("xb") as stream:
        stream.truncate((content + 4 * _MEGABYTE) // _MEGABYTE * _MEGABYTE + 4 * _MEGABYTE)
    command = ["mkfs.ext4", "-q", "-F", "-L", LABEL, "-O", "^has_journal", "-m", "0", "-d", str(tree), str(path)]
    command[1:1] = ["-E", "root_owner=0:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode != 0:
        path.unlink()
        raise MachineError(f"no configuration disk can be made: {done.stderr.strip()}")


def _copy(source: Path, target: Path) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(source.read_bytes())
