"""Bundles: read into memory once, verified there, and unpacked from the very bytes that were verified."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

from appliance_image.agent.errors import AgentError
from appliance_image.agent.identity import Identity
from appliance_image.agent.root import Root
from appliance_image.agent.state import Pointer, State
from appliance_image.bundle import Refused, Trust, Verified, read, read_bytes, unpack, verify
from appliance_image.bundle.authorities import ISSUERS, TRUST, Authorities


def take(root: Root, source: Path | bytes, identity: Identity, state: State) -> Verified:
    """Read a bundle into memory and verify it there.

    Args:
        root: Whom to trust.
        source: A file, whatever becomes of it afterwards; or what was read from one.
        identity: Which firewall this is.
        state: Which bundles were confirmed.

    Raises:
        AgentError: It is refused; holds the reason's own code.

    """
    try:
        bundle = read_bytes(source) if isinstance(source, bytes) else read(source)
        return verify(
            bundle,
            Trust(root.trust),
            firewall=identity.firewall,
            managed_by=identity.managed_by,
            signatures=identity.signatures,
            after_serial=state.serial,
            now=datetime.now(UTC),
            crl=state.crl,
            known=state.known,
            network=identity.network,
        )
    except Refused as refused:
        raise AgentError(refused.code, refused.text) from refused
    except OSError as failed:
        raise AgentError("unreadable", f"the bundle cannot be read or verified: {failed}") from failed


def authorities_of(files: Path) -> Authorities:
    """Return the authorities of ends of a bundle whose files are here.

    Raises:
        AgentError: It has none, or they cannot be read.

    """
    try:
        return Authorities.read(
            {name: (files / name).read_bytes() for name in (TRUST, ISSUERS) if (files / name).exists()}
        )
    except Refused as refused:
        raise AgentError(refused.code, refused.text) from refused
    except OSError as failed:
        raise AgentError("unreadable", f"the bundle's authorities cannot be read: {failed}") from failed


def pointer_to(verified: Verified) -> Pointer:
    """Return what points to a bundle on the state partition."""
    return Pointer(verified.bundle.sha256, verified.manifest.serial)


def unpacked(root: Root, verified: Verified) -> Path:
    """Return the directory in memory with a bundle's files, which is made if it is not there.

    Raises:
        AgentError: It cannot be made.

    """
    place = root.run / "bundles" / verified.bundle.sha256
    if not place.is_dir():
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            unpack(verified, place)
        except OSError as failed:
            raise AgentError("unreadable", f"the bundle cannot be unpacked: {failed}") from failed
    return place


def renewed(root: Root, verified: Verified) -> Path:
    """Return the directory with a bundle's files, made anew.

    Raises:
        AgentError: It cannot be made.

    """
    shutil.rmtree(root.run / "bundles" / verified.bundle.sha256, ignore_errors=True)
    return unpacked(root, verified)


def put(root: Root, place: Path) -> None:
    """Make an unpacked bundle the one that runs, for daemons that start from now on.

    Raises:
        AgentError: It cannot be done.

    """
    try:
        fresh = root.run / "bundle.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(place)
        fresh.replace(root.bundle)
        for other in place.parent.iterdir():
            if other != place:
                shutil.rmtree(other, ignore_errors=True)
    except OSError as failed:
        raise AgentError("unreadable", f"the bundle cannot be put in place: {failed}") from failed
