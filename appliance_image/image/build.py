"""The order in which an image comes about."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance_image.image import own
from appliance_image.image.contents import Contents, bill, vulnerabilities
from appliance_image.image.disk import Sizes, disk
from appliance_image.image.errors import ImageError
from appliance_image.image.extract import extract
from appliance_image.image.initrd import BUSYBOX, initrd
from appliance_image.image.keys import SigningKey, read_key, test_key
from appliance_image.image.packages import Lock, fetch
from appliance_image.image.places import CACHE, PROJECT
from appliance_image.image.settle import Release, check_clean, install_units, set_modes, settle
from appliance_image.image.uki import LOADER, STUB, KernelImage, boot_loader, command_line, kernel_image
from appliance_image.image.verity import Sealed, seal
from appliance_image.image.workshop import Workshop, tool_root, workshop
from netpolicy.topology.model import Topology

if TYPE_CHECKING:
    from appliance_image.signing.card import Card

MANIFEST = "image.json"
_SEED = uuid.UUID("6e657470-6f6c-4963-a000-000000000000")
_UNITS = (
    PROJECT / "appliance_image/agent/units",
    PROJECT / "appliance_image/management/units",
    Path(__file__).parent / "units",
)
_TEST_UNITS = Path(__file__).parent / "units-test"
_PRIVATE = "private"
_VERSION = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_DATE = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Wish:
    """What image is wanted."""

    lock: Lock
    version: str
    """Compared by the boot loader: the newest goes first."""
    inventory: str
    """Of :func:`appliance_image.image.inventory.inventory`: without it the image is no appliance."""
    test: bool = False
    """With a console, signed by a test key."""
    flavour: str = "virtual"
    trust: Mapping[str, bytes] = field(default_factory=dict)
    """``<manager>.pem``: certificates of the authorities of its operators."""
    release_authority: bytes | None = None
    """Certificates (PEM) of who signs image updates; without, the appliance accepts none."""
    key: Path | Card | None = None
    """For Secure Boot: a file (PEM), or a card; None for a test image's own, and to leave another one unsigned."""
    key_label: str | None = None
    """Of the key, if the card holds several."""
    certificate: Path | None = None
    cache: Path = CACHE
    mirror: str | None = None
    """None: the one of this machine's apt."""
    offline: bool = False
    sizes: Sizes = field(default_factory=Sizes)
    feed: Path | None = None
    """debsecan's data."""

    @property
    def seed(self) -> uuid.UUID:
        """What UUIDs are made of."""
        return uuid.uuid5(_SEED, self.lock.text() + self.version)


@dataclass(frozen=True, slots=True)
class Built:
    """An image that has been built."""

    directory: Path
    manifest: Mapping[str, Any]
    seconds: float


def build(wish: Wish, out: Path, progress: Callable[[str], None] = lambda _: None) -> Built:
    """Build an image and put it at `out`, whole or not at all.

    Args:
        wish: What image.
        out: The directory: new, or one that an earlier build has made.
        progress: Is told what is being done.

    Raises:
        ImageError: It cannot be built; `out` is what it was.

    """
    begun = time.monotonic()
    if not _VERSION.fullmatch(wish.version):
        raise ImageError(f"{wish.version}: not a version (numbers, separated by dots)")
    out = Path(os.path.abspath(out))  # noqa: PTH100 - resolve() would follow a link at `out` and replace its target
    if out.exists() and any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise ImageError(f"{out} exists and is not an image: it is left as it is")
    progress("packages")
    packages = wish.cache / "packages"
    fetch(wish.lock, packages, wish.mirror, offline=wish.offline)
    wheels = [own.wheel(name, wish.cache / "wheels", offline=wish.offline) for name in own.WHEELS]
    tools = tool_root([packages / each.file for each in wish.lock.of("tools").packages], wish.cache)
    out.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        with workshop(tools, wish.lock.epoch) as shop:
            manifest = _assemble(wish, shop, wheels, out=out, stage=stage, progress=progress)
        (stage / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", "utf-8")
        stage.chmod(0o755)
        if out.exists():
            gone = stage.with_name(stage.name + ".old")
            out.rename(gone)
            stage.rename(out)
            shutil.rmtree(gone)
        else:
            stage.rename(out)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return Built(out, manifest, time.monotonic() - begun)


def read_certificates(path: Path) -> bytes:
    """Return a file of certificates (PEM).

    Raises:
        ImageError: It holds a private key, or no certificate.

    """
    content = path.read_bytes()
    if b"PRIVATE KEY" in content or b"BEGIN CERTIFICATE" not in content:
        raise ImageError(f"{path}: not certificates, and nothing but certificates")
    return content


def read_trust(directory: Path, topology: Topology) -> dict[str, bytes]:
    """Return the certificates in a directory, ``<manager>.pem``.

    Raises:
        ImageError: There are none, or one is of nobody who manages a firewall of the topology.

    """
    found = {path.name: read_certificates(path) for path in sorted(directory.glob("*.pem"))}
    if not found:
        raise ImageError(f"{directory} holds no MANAGER.pem: the appliance would accept no bundle")
    for name in found:
        if name.removesuffix(".pem") not in topology.managers:
            raise ImageError(f"{directory / name}: the topology has no manager {name.removesuffix('.pem')}")
    return found


def _assemble(
    wish: Wish, shop: Workshop, wheels: list[Path], *, out: Path, stage: Path, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Make every file of the image in `stage`, and return its manifest."""
    release = Release(wish.version, wish.flavour, wish.test)
    key = _key(wish, shop, out=out, stage=stage)
    # First, since a card that does not sign is not worth the wait.
    loader = boot_loader(key, shop)
    progress("root")
    made = _root(wish, shop, wheels, release)
    progress("hash tree")
    seed = wish.seed
    sealed = seal(made.directory, seed, shop)
    progress("kernel image")
    memory, before = initrd(made.directory, made.kernel, shop)
    (shop.work / "initrd").write_bytes(memory)
    (shop.work / "os-release").write_text(release.text())
    image = kernel_image(
        kernel=shop.work / "vmlinuz",
        initrd=shop.work / "initrd",
        release=made.kernel,
        line=command_line(sealed.roothash),
        os_release=shop.work / "os-release",
        key=key,
        shop=shop,
    )
    progress("disk")
    whole = disk(
        sealed,
        kernel=image.signed or image.unsigned,
        loader=loader,
        version=wish.version,
        seed=seed,
        sizes=wish.sizes,
        shop=shop,
    )
    contents = _contents(wish, shop, made, [*before, shop.root / STUB, shop.root / LOADER], wheels)
    known = vulnerabilities({*contents.root, *contents.boot}, wish.feed, shop)
    produced: dict[str, Path | bytes] = {
        "disk.raw": whole,
        "kernel.unsigned.efi": image.unsigned,
        "root.erofs": sealed.root,
        "root.verity": sealed.tree,
        "sbom.cdx.json": bill(contents).encode(),
        "vulnerabilities.json": (json.dumps(known, indent=1) + "\n").encode(),
        "packages.lock": wish.lock.text().encode(),
        "copyright.tar": own.archive(made.copyrights),
    }
    if key is not None and image.signed is not None:
        produced |= {"kernel.efi": image.signed, "secure-boot.pem": key.certificate.read_bytes()}
    for name, content in produced.items():
        if isinstance(content, bytes):
            (stage / name).write_bytes(content)
        else:
            _move(content, stage / name)
        (stage / name).chmod(0o644)
    return _manifest(wish, contents, made, sealed=sealed, image=image, key=key) | {"files": _described(stage, produced)}


@dataclass(frozen=True, slots=True)
class _Root:
    """The root before it is sealed."""

    directory: Path
    kernel: str
    """Its release (``uname -r``)."""
    modules: list[str]
    units: list[str]
    copyrights: dict[str, bytes]


def _manifest(
    wish: Wish, contents: Contents, made: _Root, *, sealed: Sealed, image: KernelImage, key: SigningKey | None
) -> dict[str, Any]:
    """Return what image.json says of an image, beside its files."""
    inventory = json.loads(wish.inventory)
    return {
        "format": 1,
        "version": wish.version,
        "flavour": wish.flavour,
        "test": wish.test,
        "snapshot": contents.snapshot,
        "source_date_epoch": wish.lock.epoch,
        "kernel": made.kernel,
        "command_line": image.command_line,
        "roothash": sealed.roothash,
        "root_uuid": str(sealed.root_uuid),
        "tree_uuid": str(sealed.tree_uuid),
        "pcr11": image.pcr11,
        "signed_by": None if key is None else key.subject,
        "network": inventory["network"],
        "firewalls": sorted(inventory["firewalls"]),
        "trust": sorted(name.removesuffix(".pem") for name in wish.trust),
        "units": made.units,
        "modules": made.modules,
        "packages": len(contents.root),
    }


def _described(stage: Path, names: Iterable[str]) -> dict[str, dict[str, str | int]]:
    """Return hashes and sizes (bytes) of files."""
    return {
        name: {
            "sha256": _sha256(stage / name),
            "size": (stage / name).stat().st_size,
            "on_disk": (stage / name).stat().st_blocks * 512,
        }
        for name in sorted(names)
    }


def _contents(wish: Wish, shop: Workshop, made: _Root, before: Iterable[Path], wheels: Iterable[Path]) -> Contents:
    """Return all that an image is made of; `before` are the files of the tools' root that go before the root."""
    owners = {shop.owner(path) for path in before}
    return Contents(
        version=wish.version,
        snapshot=f"{wish.lock.snapshot:{_DATE}}",
        seed=wish.seed,
        root=wish.lock.of("root").packages,
        boot=tuple(each for each in wish.lock.of("tools").packages if each.file in owners),
        wheels={each.name.split("-")[0]: (each.name.split("-")[1], _sha256(each)) for each in wheels},
        modules={path: _sha256(made.directory / own.SITE / path) for path in made.modules},
    )


def _key(wish: Wish, shop: Workshop, *, out: Path, stage: Path) -> SigningKey | None:
    """Return the key to sign with, if there is one; a test key stays with the images that it has signed."""
    if wish.key is not None and wish.certificate is not None:
        return read_key(wish.key, wish.certificate, shop, test=wish.test, label=wish.key_label)
    if not wish.test:
        return None
    if (out / _PRIVATE).is_dir():
        shutil.copytree(out / _PRIVATE, stage / _PRIVATE)
    return test_key(stage / _PRIVATE, shop)


def _root(wish: Wish, shop: Workshop, wheels: list[Path], release: Release) -> _Root:
    """Make the root."""
    root = shop.work / "root"
    root.mkdir()
    extracted = extract([wish.cache / "packages" / each.file for each in wish.lock.of("root").packages], root)
    kernel = next((root / "usr/lib/modules").iterdir()).name
    shutil.copyfile(root / "boot" / f"vmlinuz-{kernel}", shop.work / "vmlinuz")
    settle(root, kernel, release, shop)
    modules = own.install(root, wheels, shop)
    share = root / "usr/share/netpolicy"
    (share / "trust").mkdir(parents=True)
    (share / "inventory.json").write_text(wish.inventory, "utf-8")
    for name, content in sorted(wish.trust.items()):
        (share / "trust" / name).write_bytes(content)
    if wish.release_authority is not None:
        (share / "release.pem").write_bytes(wish.release_authority)
    units = install_units(root, [*_UNITS, *([_TEST_UNITS] if wish.test else [])])
    if wish.test:
        shutil.copyfile(shop.root / BUSYBOX, root / BUSYBOX)
        (root / BUSYBOX).chmod(0o755)
    set_modes(root)
    check_clean(root)
    return _Root(root, kernel, modules, units, extracted.copyrights)


def _move(source: Path, target: Path) -> None:
    """Move a file, keeping its holes, to what may be another file system."""
    try:
        source.rename(target)
    except OSError:
        with source.open("rb") as reader, target.open("wb") as writer:
            end = os.fstat(reader.fileno()).st_size
            at = 0
            while at < end:
                try:
                    data = os.lseek(reader.fileno(), at, os.SEEK_DATA)
                except OSError:
                    break
                hole = os.lseek(reader.fileno(), data, os.SEEK_HOLE)
                reader.seek(data)
                writer.seek(data)
                left = hole - data
                while left:
                    piece = reader.read(min(left, 1 << 20))
                    writer.write(piece)
                    left -= len(piece)
                at = hole
            writer.truncate(end)
        source.unlink()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
