"""A configuration medium: a block device with a label of ours, with one bundle and perhaps an identity on it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance_image.agent.errors import AgentError
from appliance_image.agent.programs import run
from appliance_image.agent.root import Root
from appliance_image.bundle.archive import BUNDLE_BYTES, SUFFIX
from netpolicy.inputs import read_regular

LABEL = "NETPOLICY-CFG"
"""Of the partition, or of its file system."""
_FAT_LABEL = LABEL[:11]
"""FAT has room for no more (Microsoft, FAT specification, BS_VolLab)."""
_BLOCK = Path("/sys/class/block")
_SECONDS = 30.0
"""For mounting, and for reading a bundle: far less than a boot has."""
_ENTRIES = 1024
"""Names in its root directory."""
_IDENTITY, _IDENTITY_FILES, _IDENTITY_BYTES = "identity", 32, 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def find() -> tuple[Path, str] | None:
    """Return the device of the first medium and its file system; None if there is none."""
    for device in sorted(_BLOCK.iterdir()) if _BLOCK.is_dir() else ():
        node = Path("/dev") / device.name
        with contextlib.suppress(OSError):
            label, kind = label_of(node)
            if kind and (label in {LABEL, _FAT_LABEL} or _partition_name(device) == LABEL):
                return node, kind
    return None


def label_of(node: Path) -> tuple[str, str]:
    """Return label and kind of the file system on a device; empty if it is of no kind that a medium may have.

    Raises:
        OSError: It cannot be read.

    """
    with node.open("rb") as stream:
        head = stream.read(2048)
    if head[1024 + 0x38 : 1024 + 0x3A] == b"\x53\xef":  # ext4 superblock: s_magic, s_volume_name
        return head[1024 + 0x78 : 1024 + 0x88].split(b"\0")[0].decode(errors="replace"), "ext4"
    if head[510:512] == b"\x55\xaa":
        for kind, name in ((slice(82, 90), slice(71, 82)), (slice(54, 62), slice(43, 54))):
            if head[kind].startswith(b"FAT"):
                return head[name].decode(errors="replace").rstrip(), "vfat"
    return "", ""


@contextmanager
def mounted(root: Root, node: Path, kind: str) -> Iterator[Path]:
    """Give the files of a medium, read-only, while inside.

    Raises:
        AgentError: It cannot be mounted.

    """
    place = root.run / "medium"
    place.mkdir(parents=True, exist_ok=True)
    options = "ro,nosuid,nodev,noexec" + (",noload" if kind == "ext4" else "")
    run(root, ["mount", "-t", kind, "-o", options, str(node), str(place)], seconds=_SECONDS)
    try:
        yield place
    finally:
        with contextlib.suppress(AgentError):
            run(root, ["umount", str(place)])


def bundle(place: Path) -> bytes:
    """Return the content of the one bundle in the root directory of a medium.

    Raises:
        AgentError: There is none, more than one, or it is anything but a plain file that can be read in time.

    """
    names = [name for name in _names(place, _ENTRIES) if name.endswith(SUFFIX)]
    if len(names) != 1:
        raise AgentError("no-bundle", f"the medium holds {len(names)} bundles; expected one")
    try:
        with _directory(place) as descriptor:
            return read_regular(names[0], BUNDLE_BYTES, follow=False, directory=descriptor, seconds=_SECONDS)
    except OSError as failed:
        text = f"the medium's '{_shown(names[0])}' cannot be read: {failed.strerror}"
        raise AgentError("unreadable", text) from failed


def identity(place: Path) -> dict[str, bytes]:
    """Return the files of a medium's directory ``identity``, without those whose names begin with a dot.

    Raises:
        AgentError: It is a link, holds too much, or anything but plain files of a sane size.

    """
    source, found = place / _IDENTITY, {}
    if not os.path.lexists(source):
        return {}
    for name in _names(source, _IDENTITY_FILES):
        if name.startswith("."):
            continue
        if _NAME.fullmatch(name) is None:
            raise AgentError("malformed", f"the medium's identity holds '{_shown(name)}', which is no name of a file")
        try:
            with _directory(source) as descriptor:
                found[name] = read_regular(name, _IDENTITY_BYTES, follow=False, directory=descriptor, seconds=_SECONDS)
        except OSError as failed:
            text = f"the medium's {_IDENTITY}/{name} cannot be read: {failed.strerror}"
            raise AgentError("unreadable", text) from failed
    return found


def _names(place: Path, most: int) -> list[str]:
    """Return the names in a directory, sorted; it is not read on when there are more than `most`."""
    found: list[str] = []
    try:
        with _directory(place) as descriptor, os.scandir(descriptor) as entries:
            for entry in entries:
                found.append(entry.name)
                if len(found) > most:
                    raise AgentError("malformed", f"the medium's '{_shown(place.name)}' holds more than {most} names")
    except OSError as failed:
        text = f"the medium's '{_shown(place.name)}' cannot be read: {failed.strerror}"
        raise AgentError("unreadable", text) from failed
    return sorted(found)


@contextmanager
def _directory(place: Path) -> Iterator[int]:
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _shown(name: str) -> str:
    """Return a name that somebody else chose, for the journal: one line, not long."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name[:60])


def _partition_name(device: Path) -> str:
    with contextlib.suppress(OSError):
        for line in (device / "uevent").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("PARTNAME="):
                return line.removeprefix("PARTNAME=")
    return ""
