"""The initial RAM disk: a script of busybox that closes the kernel, checks the root's hash tree and goes there."""

from __future__ import annotations

import lzma
import stat
from dataclasses import dataclass
from pathlib import Path

from appliance_image.image.errors import ImageError
from appliance_image.image.workshop import Workshop

_HERE = Path(__file__).parent / "boot"
BUSYBOX = "usr/bin/busybox"
_PROGRAMS = {"veritysetup": "usr/sbin/veritysetup", "nft": "usr/sbin/nft", "blkid": "usr/sbin/blkid"}
_MODULES = (
    "nf_tables", "virtio_blk", "virtio_scsi", "sd_mod", "ahci", "nvme", "mmc_block", "megaraid_sas", "mpt3sas",
    "smartpqi", "xhci-pci", "usb-storage", "uas", "dm-verity", "erofs",
)  # fmt: skip
_NEEDED = frozenset({"nf_tables", "dm-verity", "erofs", "virtio_blk"})


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a cpio archive."""

    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def cpio(entries: dict[str, Entry]) -> bytes:
    """Return an archive in the "newc" format (Linux, Documentation/driver-api/early-userspace/buffer-format.rst)."""
    result = bytearray()
    for number, (name, entry) in enumerate([*sorted(entries.items()), ("TRAILER!!!", Entry(0))], 1):
        raw = name.encode() + b"\0"
        links = 2 if stat.S_ISDIR(entry.mode) else 1
        fields = (number, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, *entry.device, len(raw), 0)
        for piece in (b"070701" + b"".join(b"%08X" % each for each in fields) + raw, entry.content):
            result += piece + b"\0" * (-len(piece) % 4)
    return bytes(result)


def initrd(root: Path, kernel: str, shop: Workshop) -> tuple[bytes, list[Path]]:
    """Return the initial RAM disk, compressed, and the files of the tools' root that are in it.

    Args:
        root: The root it leads to, whose nft, libraries and modules are in it as well.
        kernel: The kernel's release.
        shop: With busybox, veritysetup and zstd.

    """
    directories = ("dev", "proc", "sys", "run", "new", "bin", "etc", "lib", "lib64", "lib/modules")
    entries = dict.fromkeys(directories, Entry(stat.S_IFDIR | 0o755))
    entries["dev/console"] = Entry(stat.S_IFCHR | 0o600, device=(5, 1))
    entries["dev/null"] = Entry(stat.S_IFCHR | 0o666, device=(1, 3))
    entries["init"] = Entry(stat.S_IFREG | 0o755, (_HERE / "init").read_bytes())
    entries["etc/closed.nft"] = Entry(stat.S_IFREG | 0o644, (_HERE / "closed.nft").read_bytes())
    entries["bin/busybox"] = Entry(stat.S_IFREG | 0o755, (shop.root / BUSYBOX).read_bytes())
    entries |= {
        f"bin/{name}": Entry(stat.S_IFREG | 0o755, (shop.root / program).read_bytes())
        for name, program in _PROGRAMS.items()
    }
    libraries = sorted(_libraries([f"/{each}" for each in _PROGRAMS.values()], shop))
    entries |= {
        ("lib64/" if path.name.startswith("ld-linux") else "lib/") + path.name: Entry(
            stat.S_IFREG | 0o755, path.read_bytes()
        )
        for path in libraries
    }
    order = []
    for path in modules(root / "usr/lib/modules" / kernel):
        raw = path.read_bytes()
        name = f"lib/modules/{path.name.partition('.')[0]}.ko"
        entries[name] = Entry(stat.S_IFREG | 0o644, lzma.decompress(raw) if path.suffix == ".xz" else raw)
        order.append(f"/{name}\n")
    entries["etc/modules"] = Entry(stat.S_IFREG | 0o644, "".join(order).encode())
    used = [shop.root / BUSYBOX, *(shop.root / program for program in _PROGRAMS.values()), *libraries]
    return shop.run("zstd", "-15", "-T2", "-q", "-c", stdin=cpio(entries)), used


def modules(directory: Path) -> list[Path]:
    """Return the modules that the RAM disk loads, each after those it depends on, or asks to have first (softdep).

    Args:
        directory: The kernel's, with what depmod wrote.

    """
    depends = _dependencies(directory)
    first = _asked_for_first(directory)
    result: list[Path] = []

    def add(name: str) -> None:
        for each in first.get(name, ()):
            if each in depends:
                add(each)
        path, others = depends[name]
        # modules.dep lists the nearest first; loading goes the other way.
        for other in reversed(others):
            add(other)
        if path != Path() and path not in result:
            result.append(path)

    for name in _MODULES:
        if _module(name) in depends:
            add(_module(name))
        elif name in _NEEDED:
            raise ImageError(f"the kernel has no module {name}")
    return result


def _dependencies(directory: Path) -> dict[str, tuple[Path, list[str]]]:
    """Return, for each module, its file and what it cannot be loaded without; of those built in, no file."""
    found: dict[str, tuple[Path, list[str]]] = {}
    for line in (directory / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        found[_module(path)] = (directory / path, [_module(other) for other in others.split()])
    for line in (directory / "modules.builtin").read_text().splitlines():
        found.setdefault(_module(line), (Path(), []))
    return found


def _asked_for_first(directory: Path) -> dict[str, list[str]]:
    """Return, for each module, those that it asks to have before it, by any of their names (modprobe.d(5), softdep)."""
    aliases: dict[str, list[str]] = {}
    for line in (directory / "modules.alias").read_text().splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "alias":
            aliases.setdefault(_module(words[1]), []).append(_module(words[2]))
    found: dict[str, list[str]] = {}
    for line in (directory / "modules.softdep").read_text().splitlines():
        kind, _, rest = line.partition(" ")
        name, _, wanted = rest.partition(" pre: ")
        if kind == "softdep":
            names = [_module(each) for each in wanted.partition(" post:")[0].split()]
            found[_module(name)] = [each for one in names for each in (one, *aliases.get(one, ()))]
    return found


def _module(path: str) -> str:
    """Return a module's name as the kernel has it."""
    return Path(path).name.partition(".")[0].replace("-", "_")


def _libraries(programs: list[str], shop: Workshop) -> set[Path]:
    """Return the shared libraries that programs of the tools' root need."""
    found = set()
    for program in programs:
        for line in shop.run("/lib64/ld-linux-x86-64.so.2", "--list", program).decode().splitlines():
            words = line.split()
            path = next((word for word in words if word.startswith("/")), None)
            if "not found" in line or (path is None and "vdso" not in line):
                raise ImageError(f"{program} lacks a library: {line.strip()}")
            if path is not None:
                found.add((shop.root / path.removeprefix("/")).parent.resolve() / Path(path).name)
    return found
