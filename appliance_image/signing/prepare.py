"""From a build to a bundle that nobody has signed yet."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from appliance_image.bundle.archive import BUNDLE_BYTES, read_bytes, write
from appliance_image.bundle.authorities import Authorities, needed
from appliance_image.bundle.manifest import Held, Manifest, Step
from appliance_image.bundle.model import Bundle
from appliance_image.bundle.refused import Code, Refused
from netpolicy.build import BuildError
from netpolicy.build.manifest import MANIFEST
from netpolicy.inputs import read_document, read_regular


@dataclass(frozen=True, slots=True)
class Order:
    """What a bundle is to be."""

    firewall: str
    serial: int
    not_before: datetime
    life: timedelta
    crl: bytes
    """The manager's revocation lists (PEM)."""
    authorities: bytes | None = None
    """Roots and issuers of all ends of the network (PEM): a firewall with a relay needs them."""


def prepare(build: Path, order: Order) -> Bundle:
    """Return the bundle of one firewall of a build, unsigned.

    Raises:
        BuildError: It is no build, or has no such firewall.
        Refused: A file is not the one that was compiled (altered), what comes out is no bundle (malformed), or the
            authorities of ends are missing or none.
        OSError: It cannot be read.

    """
    top = _build_manifest(build)
    try:
        known = top["firewalls"][order.firewall]
    except KeyError:
        names = ", ".join(top["firewalls"])
        raise BuildError(f"{build} has no firewall '{order.firewall}'; it has: {names}") from None
    files = _files(build, order.firewall, top["files_sha256"])
    if order.authorities is not None:
        files |= Authorities.of(order.authorities, datetime.now(UTC)).files()
    elif needed(files):
        raise Refused(Code.NO_AUTHORITIES, f"'{order.firewall}' has a relay: the authorities of ends must be named")
    begin = order.not_before.astimezone(UTC).replace(microsecond=0)
    manifest = Manifest(
        network=top["network"],
        topology_sha256=top["topology_sha256"],
        firewall=order.firewall,
        managed_by=known["managed_by"],
        signatures=known["signatures"],
        serial=order.serial,
        not_before=begin,
        not_after=begin + order.life,
        interfaces=known["interfaces"],
        apply=tuple(
            Step(step["file"], tuple(step["command"]), tuple(step.get("environment", {}).items()))
            for step in top["apply"]
        ),
        crl=Held.of(order.crl),
        files={path: Held.of(content) for path, content in files.items()},
    )
    # Read back: what would be refused as a bundle is not given to anybody to sign.
    return read_bytes(write(manifest, None, order.crl, files))


def _build_manifest(build: Path) -> dict[str, Any]:
    try:
        top: dict[str, Any] = read_document(build / MANIFEST, BUNDLE_BYTES)
        if not isinstance(top["firewalls"], dict) or not isinstance(top["files_sha256"], dict):
            raise BuildError(f"{build} was made by an older netpolicy: compile it again")
    except FileNotFoundError as missing:
        raise BuildError(
            f"{build} holds no {MANIFEST}: it is no build; expected what netpolicy compile made"
        ) from missing
    except (ValueError, KeyError, TypeError) as wrong:
        raise BuildError(f"{build / MANIFEST} is damaged: {wrong}") from wrong
    return top


def _files(build: Path, firewall: str, hashes: Mapping[str, str]) -> dict[str, bytes]:
    """Return a firewall's files by their path below its directory, each the one that was compiled."""
    place = build / firewall
    found: dict[str, bytes] = {}
    room = BUNDLE_BYTES
    for path in sorted(place.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise Refused(Code.ALTERED, f"{path} is neither a file nor a directory")
        if path.is_dir():
            continue
        name = path.relative_to(build).as_posix()
        if path.stat().st_size > room:
            raise Refused(Code.MALFORMED, f"{place} is larger than a bundle may be ({BUNDLE_BYTES} bytes)")
        content = read_regular(path, room, follow=False)
        room -= len(content)
        if hashes.get(name) != hashlib.sha256(content).hexdigest():
            raise Refused(Code.ALTERED, f"{path} is not what was compiled: {build / MANIFEST} has another hash")
        if b"PRIVATE KEY-----" in content:
            raise Refused(Code.MALFORMED, f"{path} holds a private key, and those are never in a bundle")
        found[path.relative_to(place).as_posix()] = content
    missing = {name for name in hashes if name.startswith(f"{firewall}/")} - {f"{firewall}/{path}" for path in found}
    if missing:
        raise Refused(Code.ALTERED, f"{build / min(missing)} is missing")
    return found
