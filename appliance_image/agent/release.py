"""An image update: one file with a root, its hash tree and its kernel image, signed by the authority of releases.

A POSIX ustar archive with ``manifest.json``, ``manifest.cms`` (detached, over the bytes of the manifest),
``kernel.efi``, ``root.erofs`` and ``root.verity``, in this order, and with no header but what name and size call
for: nothing is read but what stands where it must, and of that no more than fits.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from appliance_image.agent.errors import AgentError
from appliance_image.bundle import Refused
from appliance_image.bundle.archive import BLOCK, SIZE, header
from appliance_image.bundle.verify import check_release
from netpolicy.inputs import open_regular, parse_document

MANIFEST, SIGNATURE = "manifest.json", "manifest.cms"
KERNEL, ROOT, TREE = "kernel.efi", "root.erofs", "root.verity"
FILES = (KERNEL, ROOT, TREE)
AUTHORITY = "release.pem"
"""Of releases, beside the inventory."""
CHUNK = 4 << 20
_KERNEL_BYTES, _MANIFEST_BYTES = 96 << 20, 1 << 20
_MOST_BYTES = (8 << 30) - 1
"""That a header has room for."""
_VERSION = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Part:
    """A file of an update."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Release:
    """What is signed."""

    version: str
    roothash: str
    parts: dict[str, Part]
    crl: str
    """The revocation lists of the authorities of releases (PEM)."""

    def emit(self) -> bytes:
        """Return the manifest."""
        files = {name: {"sha256": each.sha256, "size": each.size} for name, each in self.parts.items()}
        document = {"format": 2, "kind": "image", "version": self.version, "roothash": self.roothash, "files": files}
        document["crl"] = self.crl
        return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode("ascii")


@dataclass(frozen=True, slots=True)
class Demand:
    """What this firewall demands of an image, as it does of a bundle."""

    signatures: int
    """How many different persons must have signed."""
    lists: bytes
    """The revocation lists that have been seen here (PEM); may be empty."""


class Update:
    """An open update whose manifest was verified."""

    def __init__(self, descriptor: int, release: Release, places: dict[str, int], lists: bytes) -> None:
        self.release = release
        self.lists = lists
        """The newest revocation lists that were seen (PEM): store them."""
        self._descriptor = descriptor
        self._places = places

    def kernel(self) -> bytes:
        """Return the kernel image.

        Raises:
            AgentError: It is not the one that was signed.

        """
        return b"".join(self.chunks(KERNEL))

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file; the end comes only if it was the one that was signed.

        Raises:
            AgentError: It was not.

        """
        part, found, at = self.release.parts[name], hashlib.sha256(), self._places[name]
        left = part.size
        try:
            while left and (chunk := os.pread(self._descriptor, min(CHUNK, left), at)):
                found.update(chunk)
                at, left = at + len(chunk), left - len(chunk)
                yield chunk
        except OSError as failed:
            raise AgentError("malformed", f"{name} cannot be read: {failed}") from failed
        if left or found.hexdigest() != part.sha256:
            raise AgentError("altered", f"{name} is not the file that was signed")


@contextmanager
def opened(path: Path, authorities: Path, demand: Demand) -> Iterator[Update]:
    """Open an update and verify its manifest.

    Args:
        path: The file.
        authorities: Certificates of those whose releases are taken (PEM).
        demand: Who must have signed.

    Raises:
        AgentError: It is no update, or nobody who may has signed it.

    """
    try:
        descriptor = open_regular(path)
    except OSError as failed:
        raise AgentError("malformed", f"{path} is no image update: {failed.strerror}") from failed
    try:
        manifest, at = _leading(descriptor, MANIFEST, 0)
        signature, at = _leading(descriptor, SIGNATURE, at)
        release = _parsed(manifest)
        lists = _verify(manifest, signature, release, authorities, demand)
        yield Update(descriptor, release, _places(descriptor, release, at), lists)
    finally:
        os.close(descriptor)


def newer(version: str, than: str) -> bool:
    """Tell whether a version is higher than another one, number by number."""

    def key(text: str) -> list[int]:
        return [int(each) for each in re.findall(r"[0-9]+", text)]

    return key(version) > key(than)


def _verify(manifest: bytes, signature: bytes, release: Release, authorities: Path, demand: Demand) -> bytes:
    """Return the revocation lists to keep, if those who must have signed."""
    try:
        known = authorities.read_bytes()
    except OSError as missing:
        raise AgentError("no-trust", f"this image knows no authority of releases: {missing}") from missing
    try:
        return check_release(
            manifest,
            signature,
            authorities=known,
            crl=release.crl.encode(),
            stored=demand.lists,
            signatures=demand.signatures,
            now=datetime.now(UTC),
        ).crl
    except Refused as refused:
        raise AgentError(refused.code, refused.text) from refused


def _parsed(manifest: bytes) -> Release:
    try:
        document = parse_document(manifest)
        parts = {name: Part(str(each["sha256"]), int(each["size"])) for name, each in document["files"].items()}
        release = Release(str(document["version"]), str(document["roothash"]), parts, str(document["crl"]))
    except (ValueError, KeyError, TypeError, AttributeError) as wrong:
        raise AgentError("malformed", f"{MANIFEST}: {wrong!r}") from wrong
    if release.emit() != manifest or set(parts) != set(FILES):
        raise AgentError("malformed", f"{MANIFEST} is not written in the one form that it may have")
    if _VERSION.fullmatch(release.version) is None or _SHA256.fullmatch(release.roothash) is None:
        raise AgentError("malformed", f"{MANIFEST}: version or root hash are none")
    if not release.crl.isascii():
        raise AgentError("malformed", f"{MANIFEST}: the revocation lists are none")
    if any(not 0 <= each.size <= _MOST_BYTES for each in parts.values()):
        raise AgentError("malformed", f"{MANIFEST}: a file has a size that none can have")
    if parts[KERNEL].size > _KERNEL_BYTES:
        raise AgentError("malformed", f"the kernel image is larger than {_KERNEL_BYTES} bytes")
    return release


def _leading(descriptor: int, name: str, at: int) -> tuple[bytes, int]:
    """Return the content of a small file that must begin at a byte, and the byte behind it; nothing else is read."""
    found = _pread(descriptor, BLOCK, at)
    size = _size(found)
    if not 0 <= size <= _MANIFEST_BYTES or found != header(name, size):
        raise AgentError("malformed", f"it has no {name} of at most {_MANIFEST_BYTES} bytes at byte {at}")
    content = _pread(descriptor, size, at + BLOCK)
    if len(content) != size:
        raise AgentError("malformed", f"{name} is cut off")
    return content, _behind(at, size)


def _places(descriptor: int, release: Release, at: int) -> dict[str, int]:
    """Return where the content of each file begins; they stand in their order, as long as the manifest says."""
    found = {}
    for name in FILES:
        size = release.parts[name].size
        if _pread(descriptor, BLOCK, at) != header(name, size):
            raise AgentError("malformed", f"it has no {name} of {size} bytes at byte {at}")
        found[name] = at + BLOCK
        at = _behind(at, size)
    return found


def _behind(at: int, size: int) -> int:
    return at + BLOCK + size + -size % BLOCK


def _size(found: bytes) -> int:
    digits = found[SIZE].rstrip(b"\0")
    return int(digits, 8) if digits and set(digits) <= set(b"01234567") else -1


def _pread(descriptor: int, size: int, at: int) -> bytes:
    try:
        return os.pread(descriptor, size, at)
    except OSError as failed:
        raise AgentError("malformed", f"the image update cannot be read: {failed}") from failed
