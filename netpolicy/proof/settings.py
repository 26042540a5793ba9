"""Kernel settings of a firewall: what its files say, and what the kernel has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

SETTINGS = Path("/proc/sys")
"""Those of the network are of the namespace of the thread that reads them."""


class SettingError(ValueError):
    """A line of a file is no setting."""


def settings(text: str) -> Iterator[tuple[str, str]]:
    """Yield keys and values of a file as :mod:`netpolicy.host.kernel` writes them: keys with '/'.

    Raises:
        SettingError: A line is none, or its key leads elsewhere.

    """
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        key, equals, value = (part.strip() for part in stripped.partition("="))
        if not equals or not key or not value or key.startswith("/") or ".." in key.split("/"):
            raise SettingError(f"no kernel setting: {line}")
        yield key, value


def wanted_settings(files: Path) -> dict[str, str]:
    """Return the kernel settings of a firewall that forwards.

    Raises:
        OSError, SettingError: A file cannot be read.

    """
    closed = dict(settings((files / "sysctl.conf").read_text(encoding="utf-8")))
    # Those of single interfaces follow the general switch, which is in the other file.
    closed = {key: value for key, value in closed.items() if not key.endswith("/forwarding")}
    return closed | dict(settings((files / "forwarding.conf").read_text(encoding="utf-8")))


def read(key: str) -> str:
    """Return the value of a setting.

    Raises:
        OSError: There is none.

    """
    return " ".join((SETTINGS / key).read_text(encoding="ascii").split())


def differing(wanted: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield key, wanted and present value of every setting that is not so."""
    for key, value in wanted.items():
        try:
            found = read(key)
        except OSError:
            found = "missing"
        if found != value:
            yield key, value, found
