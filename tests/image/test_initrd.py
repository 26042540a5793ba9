"""Which modules the initial RAM disk loads, and in which order: nothing in it would find out what one lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance_image.image.errors import ImageError
from appliance_image.image.initrd import modules

_DEP = """\
kernel/nf_tables.ko.xz: kernel/nfnetlink.ko.xz kernel/libcrc32c.ko.xz
kernel/nfnetlink.ko.xz:
kernel/libcrc32c.ko.xz:
kernel/crc32c_generic.ko.xz:
kernel/crc32c-intel.ko.xz:
kernel/dm-verity.ko.xz: kernel/dm-bufio.ko.xz kernel/dm-mod.ko.xz
kernel/dm-bufio.ko.xz: kernel/dm-mod.ko.xz
kernel/dm-mod.ko.xz:
kernel/virtio_blk.ko.xz:
kernel/other.ko.xz:
"""
_ALIAS = "alias crc32c crc32c_intel\nalias crc32c crc32c_generic\nalias pci:v*d* other\n"


def _tables(place: Path, dep: str = _DEP, softdep: str = "softdep libcrc32c pre: crc32c absent post: other\n") -> Path:
    for name, text in (("dep", dep), ("builtin", "kernel/erofs.ko\n"), ("alias", _ALIAS), ("softdep", softdep)):
        (place / f"modules.{name}").write_text(text)
    return place


def _names(directory: Path) -> list[str]:
    return [path.name.partition(".")[0] for path in modules(directory)]


def test_each_comes_after_what_it_depends_on_and_what_it_asks_for(tmp_path: Path) -> None:
    """A checksum by another name too, without which libcrc32c does not begin; not what is built in, nor more."""
    found = _names(_tables(tmp_path))
    assert found == [
        *("crc32c-intel", "crc32c_generic", "libcrc32c", "nfnetlink", "nf_tables"),
        *("virtio_blk", "dm-mod", "dm-bufio", "dm-verity"),
    ]


def test_a_kernel_without_what_closes_it_is_refused(tmp_path: Path) -> None:
    """No image is made of it."""
    with pytest.raises(ImageError, match="has no module nf_tables"):
        modules(_tables(tmp_path, _DEP.replace("nf_tables", "nf_chairs")))
