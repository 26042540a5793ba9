"""The disk: EFI system partition, two slots for roots and their hash trees, state."""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from appliance_image.image.errors import ImageError
from appliance_image.image.verity import Sealed
from appliance_image.image.workshop import Workshop

MIB = 1 << 20
ESP_UUID = uuid.UUID("6e657470-6f6c-4963-a000-000000000001")
STATE_UUID = uuid.UUID("6e657470-6f6c-4963-a000-000000000002")
"""Partition UUIDs, the same on every appliance: units name them."""
TRIES = 3
"""How often the boot loader starts a slot that is never found healthy."""

_LOADER_CONF = """\
timeout 0
editor no
auto-entries no
auto-firmware no
console-mode keep
"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of partitions, in MiB."""

    esp: int = 128
    root: int = 192
    tree: int = 8
    state: int = 512


def disk(
    sealed: Sealed, *, kernel: Path, loader: Path, version: str, seed: uuid.UUID, sizes: Sizes, shop: Workshop
) -> Path:
    """Write the disk to the workshop, sparse.

    Args:
        sealed: The root of slot A; slot B is empty.
        kernel: The signed kernel image.
        loader: The signed boot loader.
        version: Goes into the kernel image's name, with the number of tries.
        seed: What UUIDs are made of.
        sizes: Of the partitions.
        shop: With systemd-repart and what it calls.

    """
    for path, size in ((sealed.root, sizes.root), (sealed.tree, sizes.tree)):
        if path.stat().st_size > size * MIB:
            raise ImageError(f"{path.name} has {path.stat().st_size} bytes: more than a slot of {size} MiB")
    esp = shop.work / "esp"
    for source, target in ((loader, "EFI/BOOT/BOOTX64.EFI"), (loader, "EFI/systemd/systemd-bootx64.efi"),
                           (kernel, f"EFI/Linux/netpolicy_{version}+{TRIES}.efi")):  # fmt: skip
        (esp / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, esp / target)
    (esp / "loader").mkdir()
    (esp / "loader/loader.conf").write_text(_LOADER_CONF)
    # mcopy keeps the times of files and directories.
    for path in (*esp.rglob("*"), esp):
        os.utime(path, (shop.epoch, shop.epoch))
    slot = "Type={kind}\nLabel={label}\nSizeMinBytes={size}M\nSizeMaxBytes={size}M\n"
    filled = slot + "UUID={uuid}\nCopyBlocks=/work/{file}\n"
    definitions = {
        "10-esp": "Type=esp\nLabel=netpolicy-esp\nFormat=vfat\nCopyFiles=/esp:/\n"
        f"UUID={ESP_UUID}\nSizeMinBytes={sizes.esp}M\nSizeMaxBytes={sizes.esp}M\n",
        "20-root-a": filled.format(
            kind="root-x86-64", label="netpolicy-a", size=sizes.root, uuid=sealed.root_uuid, file=sealed.root.name
        ),
        "21-tree-a": filled.format(
            kind="root-x86-64-verity", label="netpolicy-a-tree", size=sizes.tree, uuid=sealed.tree_uuid,
            file=sealed.tree.name,
        ),
        "30-root-b": slot.format(kind="root-x86-64", label="netpolicy-b", size=sizes.root),
        "31-tree-b": slot.format(kind="root-x86-64-verity", label="netpolicy-b-tree", size=sizes.tree),
        "40-state": "Type=linux-generic\nLabel=netpolicy-state\nFormat=ext4\n"
        f"UUID={STATE_UUID}\nSizeMinBytes={sizes.state}M\n",
    }  # fmt: skip
    repart = shop.work / "repart.d"
    repart.mkdir()
    for name, text in definitions.items():
        (repart / f"{name}.conf").write_text(f"[Partition]\n{text}")
    whole = sizes.esp + 2 * (sizes.root + sizes.tree) + sizes.state + 4
    options = f"-E hash_seed={uuid.uuid5(seed, 'ext4')}"
    shop.run("systemd-repart", "--offline=yes", "--empty=create", f"--size={whole}M", f"--seed={seed}",
             "--sector-size=512", "--dry-run=no", "--definitions=/work/repart.d", "--copy-source=/work",
             "--no-pager", "/work/disk.raw",
             environment={**shop.still, "SYSTEMD_REPART_MKFS_OPTIONS_EXT4": options})  # fmt: skip
    return shop.work / "disk.raw"
