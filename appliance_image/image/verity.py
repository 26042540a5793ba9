"""The root as erofs, and its hash tree."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path

from appliance_image.image.workshop import Workshop

_COMPRESSION = "lz4hc,9"
_CLUSTER = 65536


@dataclass(frozen=True, slots=True)
class Sealed:
    """A root that cannot be changed without its hash changing."""

    root: Path
    tree: Path
    roothash: str
    """64 hexadecimal digits."""

    @property
    def root_uuid(self) -> uuid.UUID:
        """The partition's, as the Discoverable Partitions Specification derives it."""
        return uuid.UUID(self.roothash[:32])

    @property
    def tree_uuid(self) -> uuid.UUID:
        """The hash tree's partition's."""
        return uuid.UUID(self.roothash[32:])


def seal(root: Path, seed: uuid.UUID, shop: Workshop) -> Sealed:
    """Write the file system and its hash tree to the workshop.

    Args:
        root: The directory, below the workshop's; all its files become root's.
        seed: What UUIDs and salt are made of; the same seed and root give the same bytes.
        shop: With mkfs.erofs and veritysetup.

    """
    inside = "/work/" + str(root.relative_to(shop.work))
    shop.run("mkfs.erofs", "--quiet", f"-z{_COMPRESSION}", f"-C{_CLUSTER}", f"-T{shop.epoch}", "--all-time",
             "--all-root", "-x-1", f"-U{uuid.uuid5(seed, 'root')}", "root.erofs", inside)  # fmt: skip
    image = shop.work / "root.erofs"
    with image.open("rb") as stream:
        salt = hashlib.file_digest(stream, "sha256").hexdigest()
    shop.run("veritysetup", "format", f"--salt={salt}", f"--uuid={uuid.uuid5(seed, 'tree')}",
             "--root-hash-file=root.hash", "root.erofs", "root.verity")  # fmt: skip
    return Sealed(image, shop.work / "root.verity", (shop.work / "root.hash").read_text().strip())
