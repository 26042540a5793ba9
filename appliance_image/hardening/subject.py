"""What is audited: an image that was built, unpacked for the time of the audit, or a root that is unpacked already."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance_image.hardening.figures import AuditError
from appliance_image.hardening.tools import tools
from appliance_image.image.build import MANIFEST
from appliance_image.image.errors import ImageError
from appliance_image.image.packages import Lock, read_lock
from appliance_image.image.workshop import Workshop
from netpolicy.inputs import read_document

_ROOT = "root.erofs"
_LOCK, _VULNERABILITIES = "packages.lock", "vulnerabilities.json"
_CONFIGURATIONS = ("usr/lib/modules/*/config", "boot/config-*")


@dataclass(frozen=True, slots=True)
class Subject:
    """An image's parts, as far as they are there."""

    name: str
    root: Path
    shop: Workshop
    """Its tools see the root."""
    test: bool = False
    command_line: str | None = None
    configuration: str | None = None
    """The kernel's."""
    lock: Lock | None = None
    """The packages it is made of."""
    built: Path | None = None
    """What was known to be vulnerable when it was built."""


@contextmanager
def subject(given: Path) -> Iterator[Subject]:
    """Yield what a directory holds, ready to be audited.

    Raises:
        AuditError: It is neither an image nor a root.
        LackingError: The tools cannot be had.

    """
    try:
        if (given / MANIFEST).is_file():
            with _unpacked(given) as found:
                yield found
        elif (given / "usr/lib/systemd/system").is_dir():
            with tools(given.absolute()) as shop:
                yield Subject(str(given), given, shop, configuration=_configuration(given))
        else:
            raise AuditError(f"{given} is neither an image ({MANIFEST}) nor an unpacked root (usr/lib/systemd/system)")
    except ImageError as wrong:
        raise AuditError(str(wrong)) from wrong


_MOST_BYTES = 1 << 20
"""Of a manifest."""


@contextmanager
def _unpacked(image: Path) -> Iterator[Subject]:
    try:
        manifest = read_document(image / MANIFEST, _MOST_BYTES)
        command_line, test = str(manifest["command_line"]), manifest["test"] is True
    except (OSError, ValueError, KeyError, TypeError) as wrong:
        raise AuditError(f"{image / MANIFEST} is no manifest of an image: {wrong!r}") from wrong
    lock = read_lock(image / _LOCK)
    with tempfile.TemporaryDirectory(prefix="netpolicy-audit-") as name:
        root = Path(name)
        with tools(image.absolute()) as unpacking:
            # Extended attributes would be capabilities; owners and modes are what is audited.
            argv = ("--extract=/work/root", "--preserve", "--xattrs")
            unpacking.run("fsck.erofs", *argv, f"/audit/{_ROOT}")
            (unpacking.work / "root").rename(root / "root")
        with tools(root / "root") as shop:
            yield Subject(
                str(image),
                root / "root",
                shop,
                test=test,
                command_line=command_line,
                configuration=_configuration(root / "root"),
                lock=lock,
                built=image / _VULNERABILITIES if (image / _VULNERABILITIES).is_file() else None,
            )


def _configuration(root: Path) -> str | None:
    found = [path for pattern in _CONFIGURATIONS for path in sorted(root.glob(pattern))]
    return found[0].read_text("utf-8") if found else None
