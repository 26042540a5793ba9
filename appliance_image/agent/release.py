"""An image update: one file with a root, its hash tree and its kernel image, signed by the authority of releases.

A POSIX tar with ``manifest.json``, ``manifest.cms`` (detached, over the bytes of the manifest), ``kernel.efi``,
``root.erofs`` and ``root.verity``, in this order.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from appliance_image.agent.errors import AgentError
from appliance_image.bundle import Refused
from appliance_image.bundle.verify import check_release

MANIFEST, SIGNATURE = "manifest.json", "manifest.cms"
KERNEL, ROOT, TREE = "kernel.efi", "root.erofs", "root.verity"
FILES = (KERNEL, ROOT, TREE)
AUTHORITY = "release.pem"
"""Of releases, beside the inventory."""
CHUNK = 4 << 20
_KERNEL_BYTES, _MANIFEST_BYTES = 96 << 20, 1 << 20
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

    def __init__(self, archive: tarfile.TarFile, release: Release, lists: bytes) -> None:
        self.release = release
        self.lists = lists
        """The newest revocation lists that were seen (PEM): store them."""
        self._archive = archive

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
        part, found, size = self.release.parts[name], hashlib.sha256(), 0
        try:
            stream = self._archive.extractfile(_member(self._archive, name))
            while stream is not None and (chunk := stream.read(CHUNK)):
                found.update(chunk)
                size += len(chunk)
                if size > part.size:
                    break
                yield chunk
        except (OSError, tarfile.TarError) as failed:
            raise AgentError("malformed", f"{name} cannot be read: {failed}") from failed
        if size != part.size or found.hexdigest() != part.sha256:
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
        with tarfile.open(path, "r:") as archive:
            manifest = _read(archive, MANIFEST)
            release = _parsed(manifest)
            lists = _verify(manifest, _read(archive, SIGNATURE), release, authorities, demand)
            yield Update(archive, release, lists)
    except (OSError, tarfile.TarError) as failed:
        raise AgentError("malformed", f"{path} is no image update: {failed}") from failed


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
        document = json.loads(manifest)
        parts = {name: Part(str(each["sha256"]), int(each["size"])) for name, each in document["files"].items()}
        release = Release(str(document["version"]), str(document["roothash"]), parts, str(document["crl"]))
    except (ValueError, KeyError, TypeError, AttributeError) as wrong:
        raise AgentError("malformed", f"{MANIFEST}: {wrong!r}") from wrong
    if release.emit() != manifest or set(parts) != set(FILES):
        raise AgentError("malformed", f"{MANIFEST} is not written in the one form that it may have")
    if _VERSION.fullmatch(release.version) is None or _SHA256.fullmatch(release.roothash) is None:
        raise AgentError("malformed", f"{MANIFEST}: version or root hash are none")
    if parts[KERNEL].size > _KERNEL_BYTES:
        raise AgentError("malformed", f"the kernel image is larger than {_KERNEL_BYTES} bytes")
    return release


def _member(archive: tarfile.TarFile, name: str) -> tarfile.TarInfo:
    try:
        found = archive.getmember(name)
    except KeyError:
        raise AgentError("malformed", f"it holds no {name}") from None
    if not found.isreg():
        raise AgentError("malformed", f"{name} is no plain file")
    return found


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    member = _member(archive, name)
    stream = archive.extractfile(member)
    if stream is None or member.size > _MANIFEST_BYTES:
        raise AgentError("malformed", f"{name} is too large")
    return _content(stream)


def _content(stream: IO[bytes]) -> bytes:
    return stream.read(_MANIFEST_BYTES)
