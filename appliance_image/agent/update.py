"""A new image into the slot that does not run: root and hash tree, their UUIDs in the table, and last its kernel image.

Until the kernel image has its name on the EFI system partition the boot loader knows nothing of it, and the slot that
runs is not touched. The name ends in a number of tries (``+3``, systemd's Automatic Boot Assessment): the boot loader
counts it down, and what was never found healthy, which is enforcing a bundle, gives way to the slot that runs now.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance_image.agent import durable, gpt
from appliance_image.agent.durable import Step
from appliance_image.agent.errors import AgentError
from appliance_image.agent.gpt import Partition, Table
from appliance_image.agent.identity import identify
from appliance_image.agent.lock import locked
from appliance_image.agent.programs import run
from appliance_image.agent.records import record, reserve
from appliance_image.agent.release import AUTHORITY, CHUNK, ROOT, TREE, Demand, Release, Update, newer, opened
from appliance_image.agent.root import Root

TRIES = 3
SLOTS = ("netpolicy-a", "netpolicy-b")
_TREE = "-tree"
_ESP = "netpolicy-esp"
_IMAGES = "EFI/Linux"
_HASH = re.compile(rb"netpolicy\.roothash=([0-9a-f]{64})")
_RECORDS = 4
_LISTS = "release.crl"
"""On the state partition."""


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk that this appliance runs from."""

    path: Path
    esp: Path
    """Where the EFI system partition is mounted."""
    roothash: str
    """Of the root that runs, in the signed command line."""
    version: str
    """Of the image that runs."""


@dataclass(frozen=True, slots=True)
class Updated:
    """What was written."""

    version: str
    slot: str
    image: str
    """The kernel image's name on the EFI system partition."""


def update(root: Root, source: Path, disk: Disk | None = None, *, signatures: int | None = None) -> Updated:
    """Write an image into the other slot; the next boot tries it.

    Args:
        root: Where everything is.
        source: The update.
        disk: Instead of the one that this appliance runs from, for tests.
        signatures: How many must have signed, instead of as many as sign this firewall's bundles, for tests.

    Raises:
        AgentError: It is refused, or cannot be written: the next boot has the image that runs now.

    """
    with locked(root, wait=False):
        reserve(root, _RECORDS)
        try:
            demand = Demand(identify(root).signatures if signatures is None else signatures, _seen(root))
            with opened(source, root.share / AUTHORITY, demand) as found, _running(root, disk) as running:
                record(root, "image-update", outcome="begun", version=found.release.version, before=running.version)
                durable.write(root.state / _LISTS, found.lists)
                done = _write(found, running)
        except AgentError as failed:
            record(root, "image-update", outcome="refused", code=failed.code, reason=failed.text)
            raise
        except OSError as failed:
            record(root, "image-update", outcome="failed", reason=str(failed))
            raise AgentError("disk", f"the image cannot be written: {failed}") from failed
        record(root, "image-update", outcome="installed", version=done.version, slot=done.slot)
        return done


def _seen(root: Root) -> bytes:
    """Return the newest revocation lists of the authorities of releases that came with an update."""
    try:
        return (root.state / _LISTS).read_bytes()
    except FileNotFoundError:
        return b""


def may_give_way(root: Root, disk: Disk | None = None) -> bool:
    """Tell whether the image that runs was never found healthy, and there is another one that was.

    Raises:
        AgentError: It cannot be found out, or an image is being written.

    """
    with locked(root, wait=False), _running(root, disk) as running:
        images = {image: _roothash(image) for image in _images(running)}
        proven = {hashed for image, hashed in images.items() if "+" not in image.name}
        return running.roothash in images.values() and bool(proven) and running.roothash not in proven


def _write(found: Update, running: Disk) -> Updated:
    release, table = found.release, gpt.read(running.path)
    if not newer(release.version, running.version):
        raise AgentError("older-version", f"version {release.version} is not above {running.version}, which runs")
    slot = _other_slot(table, running)
    places = {ROOT: table.named(slot), TREE: table.named(slot + _TREE)}
    for name, place in places.items():
        if release.parts[name].size > place.size:
            raise AgentError("too-large", f"{name} has {release.parts[name].size} bytes, its slot {place.size}")
    kernel = _whole(found)
    images = {image: _roothash(image) for image in _images(running)}
    if not any(hashed == running.roothash and "+" not in image.name for image, hashed in images.items()):
        raise AgentError("unproven", "the image that runs was not found healthy yet: the other one is still needed")
    # What leads to the slot goes first: a half-written one must not even be tried.
    for image, hashed in images.items():
        if hashed != running.roothash:
            durable.remove(image)
    for name, place in places.items():
        _fill(running.path, place, found, name)
    identities = {slot: uuid.UUID(release.roothash[:32]), slot + _TREE: uuid.UUID(release.roothash[32:])}
    gpt.write(running.path, table.identified(identities))
    image = running.esp / _IMAGES / f"netpolicy_{release.version}+{TRIES}.efi"
    durable.write(image, kernel)
    return Updated(release.version, slot, image.name)


def _whole(found: Update) -> bytes:
    """Read all of an update before anything is touched, and return its kernel image.

    Raises:
        AgentError: A file is not the one that was signed; what there is to fall back to is still there.

    """
    kernel = found.kernel()
    stated = _HASH.search(kernel)
    if stated is None or stated[1].decode() != found.release.roothash:
        raise AgentError("altered", "the kernel image is for another root")
    for name in (ROOT, TREE):
        for _ in found.chunks(name):
            pass
    return kernel


def _fill(disk: Path, place: Partition, found: Update, name: str) -> None:
    """Write a file into a partition, and read it back."""
    part, at = found.release.parts[name], place.start
    descriptor = os.open(disk, os.O_RDWR | os.O_CLOEXEC)
    try:
        for chunk in found.chunks(name):
            durable.before(Step.WRITE, disk)
            written = 0
            while written < len(chunk):
                written += os.pwrite(descriptor, chunk[written:], at + written)
            at += len(chunk)
        durable.before(Step.SYNC, disk)
        os.fsync(descriptor)
        digest, at, end = hashlib.sha256(), place.start, place.start + part.size
        # What the disk gives is what counts, not what is left in memory of it.
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, place.start, part.size, os.POSIX_FADV_DONTNEED)
        while at < end and (content := os.pread(descriptor, min(CHUNK, end - at), at)):
            digest.update(content)
            at += len(content)
        if digest.hexdigest() != part.sha256:
            raise AgentError("disk", f"the disk does not give {name} back as it was written")
    finally:
        os.close(descriptor)


def _other_slot(table: Table, running: Disk) -> str:
    """Return the slot that does not run."""
    mine = uuid.UUID(running.roothash[:32])
    inside = [slot for slot in SLOTS if table.named(slot).identity == mine]
    if len(inside) != 1:
        raise AgentError("disk", f"the root that runs is in {len(inside)} of the slots: nothing is overwritten")
    return next(slot for slot in SLOTS if slot not in inside)


def _images(running: Disk) -> list[Path]:
    return sorted((running.esp / _IMAGES).glob("netpolicy_*"))


def _roothash(image: Path) -> str:
    found = _HASH.search(image.read_bytes())
    return "" if found is None else found[1].decode()


def image_version() -> str | None:
    """Return the version of the image that runs (os-release(5), IMAGE_VERSION); None where it is no image of ours.

    Raises:
        OSError: It cannot be read.

    """
    release = Path("/usr/lib/os-release").read_text(encoding="utf-8")
    found = re.search(r'^IMAGE_VERSION="?([^"\n]+)', release, re.MULTILINE)
    return None if found is None else found[1]


@contextmanager
def _running(root: Root, disk: Disk | None) -> Iterator[Disk]:
    """Give the disk that this appliance runs from, its EFI system partition mounted while inside."""
    if disk is not None:
        yield disk
        return
    try:
        node = Path((root.run / "root-device").read_text(encoding="ascii").strip())
        block = (Path("/sys/class/block") / node.name).resolve(strict=True)
        line = Path("/proc/cmdline").read_bytes()
        version = image_version()
    except OSError as missing:
        raise AgentError("disk", f"this appliance does not run from a slot: {missing}") from missing
    stated = _HASH.search(line)
    if stated is None or version is None:
        raise AgentError("disk", "this appliance does not know which image it runs")
    path = Path("/dev") / block.parent.name
    number = gpt.read(path).named(_ESP).number
    device = next((each.name for each in block.parent.iterdir() if _number(each) == number), None)
    if device is None:
        raise AgentError("disk", f"{path} has no partition {number}")
    place = root.run / "esp"
    place.mkdir(exist_ok=True)
    run(root, ["mount", "-t", "vfat", "-o", "nosuid,nodev,noexec,umask=0077", f"/dev/{device}", str(place)])
    try:
        yield Disk(path, place, stated[1].decode(), version)
    finally:
        run(root, ["umount", str(place)])


def _number(block: Path) -> int:
    try:
        return int((block / "partition").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


__all__ = ["TRIES", "Disk", "Release", "Updated", "image_version", "may_give_way", "update"]
