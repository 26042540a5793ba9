"""What a running kernel has beside its rules for IP, against the files of one firewall: frames, network, settings."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from netpolicy.proof.frames import Doors, read_frames, read_live_frames
from netpolicy.proof.network import differences, wanted
from netpolicy.proof.read import LOADED, Runner
from netpolicy.proof.settings import differing, wanted_settings


def unsettled(files: Path, run: Runner | None = None) -> Iterator[str]:
    """Yield in what this thread's network namespace is not as a firewall's files say, in words.

    Args:
        files: Of the firewall's build; its rules for IP are not asked about.
        run: Runs programs inside it; by default, in this process's own.

    Raises:
        LoadError, MissingError, RefusedError: As :func:`netpolicy.proof.read.read_builds`.
        NetworkError, SettingError, OSError: A file cannot be read, or the kernel does not tell.
        MalformedError: The kernel's answer cannot be read.

    """
    interfaces = interfaces_of(files)
    (signed,) = read_frames([([files / name for name in LOADED], interfaces)])
    yield from doors_differ(signed, read_live_frames(run), interfaces)
    yield from network_differs(files, interfaces)
    yield from settings_differ(files)


def interfaces_of(files: Path) -> list[str]:
    """Return the interfaces that a firewall's files bring up.

    Raises:
        NetworkError, OSError: As :func:`netpolicy.proof.network.wanted`.

    """
    return sorted(each.what[0] for each in wanted(files) if each.kind == "link")


def doors_differ(signed: Doors, found: Doors, interfaces: Collection[str]) -> Iterator[str]:
    """Yield how what is taken from wires differs, chain by chain: there is one way to write it."""
    for interface in interfaces:
        known, there = ([each for each in doors.doors if each.device == interface] for doors in (signed, found))
        if known != there or interface not in found.devices:
            yield f"frames that {interface} takes from its wire are not those of its files"
    for door in found.doors:
        if door.device not in interfaces:
            yield f"frames of {door.device} are judged, of which the files know nothing"


def network_differs(files: Path, interfaces: Collection[str]) -> Iterator[str]:
    """Yield addresses, links, neighbours, policy rules and routes that are missing, or not in the files."""
    missing, surplus = differences(files, interfaces)
    yield from (f"missing: {each}" for each in sorted(missing))
    yield from (f"not in the files: {each}" for each in sorted(surplus))


def settings_differ(files: Path) -> Iterator[str]:
    """Yield kernel settings that are others."""
    for key, expected, found in differing(wanted_settings(files)):
        yield f"{key} is {found}, in the files {expected}"
