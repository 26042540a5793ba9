"""Kernel settings of an image: what its files, its command line and its kernel's configuration say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from appliance_image.hardening.figures import AuditError

_DIRECTORIES = ("usr/lib/sysctl.d", "run/sysctl.d", "etc/sysctl.d")
"""The later win over files of the same name (sysctl.d(5))."""
_OPTION = re.compile(r"(?:CONFIG_(?P<name>\w+)=(?P<value>.*)|# CONFIG_(?P<off>\w+) is not set)")
_WRITES = re.compile(r"^ExecStart=\S*/systemd-sysctl (?:--strict )?/(?P<file>\S+)$", re.MULTILINE)
_UNITS = "usr/lib/systemd/system"
_TARGET = "netpolicy.target"


def sysctls(root: Path, firewalls: Iterable[Path]) -> dict[str, str]:
    """Return what a running appliance's settings are: the image's, what its units write, and a firewall's.

    Where firewalls differ, the value is all of theirs: none of the baseline then.

    Args:
        root: The unpacked root.
        firewalls: Directories of their compiled files.

    """
    files: dict[str, Path] = {}
    for directory in _DIRECTORIES:
        files.update({path.name: path for path in (root / directory).glob("*.conf")})
    found = {key: value for _, path in sorted(files.items()) for key, value in assignments(path.read_text("utf-8"))}
    found.update(written(root))
    theirs: dict[str, dict[str, None]] = {}
    for each in firewalls:
        try:
            text = (each / "sysctl.conf").read_text("utf-8")
        except OSError as missing:
            raise AuditError(f"{each} is no compiled firewall: {missing}") from missing
        for key, value in assignments(text):
            theirs.setdefault(key, {})[value] = None
    return {**found, **{key: " and ".join(values) for key, values in theirs.items()}}


def assignments(text: str) -> Iterator[tuple[str, str]]:
    """Yield keys, with slashes, and values of a file of settings (sysctl.d(5))."""
    for line in text.splitlines():
        key, equals, value = (part.strip() for part in line.partition("="))
        if equals and not key.startswith(("#", ";")):
            yield _slashed(key.removeprefix("-")), " ".join(value.split())


def written(root: Path) -> dict[str, str]:
    """Return the settings that services of the firewall's target write with systemd-sysctl(8) when it stands."""
    system = root / _UNITS
    target = system / _TARGET
    names = re.findall(r"^Wants=(.*)$", target.read_text("utf-8"), re.MULTILINE) if target.is_file() else []
    wanted = {name for line in names for name in line.split()}
    wanted |= {each.name for each in system.glob(f"{_TARGET}.wants/*")}
    return {
        key: value
        for name in sorted(wanted)
        if (system / name).is_file()
        for match in _WRITES.finditer((system / name).read_text("utf-8"))
        if (root / match["file"]).is_file()
        for key, value in assignments((root / match["file"]).read_text("utf-8"))
    }


def command_line(text: str) -> dict[str, str]:
    """Return the parameters of a command line; the last counts where one is there twice."""
    return {name: value for name, _, value in (word.partition("=") for word in text.split())}


def configuration(text: str) -> dict[str, str]:
    """Return the options of a kernel's configuration, without ``CONFIG_``."""
    found = {}
    for line in text.splitlines():
        if match := _OPTION.fullmatch(line):
            if match["off"]:
                found[match["off"]] = "off"
            else:
                found[match["name"]] = match["value"].strip('"')
    return found


def _slashed(key: str) -> str:
    """Return a key with slashes: the first separator tells which of the two it is written with (sysctl.d(5))."""
    dot, slash = key.find("."), key.find("/")
    if dot < 0 or 0 <= slash < dot:
        return key
    return key.translate(str.maketrans("./", "/."))
