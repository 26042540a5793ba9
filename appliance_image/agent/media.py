"""A configuration medium: a block device with a label of ours, with one bundle and perhaps an identity on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance_image.agent.errors import AgentError
from appliance_image.agent.programs import run
from appliance_image.agent.root import Root

LABEL = "NETPOLICY-CFG"
"""Of the partition, or of its file system."""
_FAT_LABEL = LABEL[:11]
"""FAT has room for no more (Microsoft, FAT specification, BS_VolLab)."""
_BLOCK = Path("/sys/class/block")


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
    run(root, ["mount", "-t", kind, "-o", options, str(node), str(place)])
    try:
        yield place
    finally:
        with contextlib.suppress(AgentError):
            run(root, ["umount", str(place)])


def _partition_name(device: Path) -> str:
    with contextlib.suppress(OSError):
        for line in (device / "uevent").read_text(encoding="utf-8").splitlines():
            if line.startswith("PARTNAME="):
                return line.removeprefix("PARTNAME=")
    return ""
