"""What a medium brings: at boot, a bundle that is newer than the one that runs, and valid, takes its place."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from secrets import token_hex

from appliance_image.agent import bundles, media
from appliance_image.agent.errors import AgentError
from appliance_image.agent.identity import Identity
from appliance_image.agent.records import record
from appliance_image.agent.recover import finish
from appliance_image.agent.root import Root
from appliance_image.agent.state import Pending, Phase, State

_SUFFIX = "*.bundle"
_IDENTITY_FILES, _IDENTITY_BYTES = 32, 1 << 20


def adopt(root: Root, identity: Identity, state: State) -> AgentError | None:
    """Look for a medium, and adopt its bundle if it is newer and valid; return why it was not, if it was not.

    Raises:
        AgentError: The state partition or the journal cannot be written.

    """
    found = media.find()
    if found is None:
        return None
    try:
        with media.mounted(root, *found) as place:
            return adopt_from(root, place, identity, state)
    except AgentError as failed:
        if failed.code in {"state", "journal"}:
            raise
        return failed


def adopt_from(root: Root, place: Path, identity: Identity, state: State) -> AgentError | None:
    """Adopt from a directory; see :func:`adopt`."""
    offered = sorted(place.glob(_SUFFIX))
    if len(offered) != 1:
        return AgentError("no-bundle", f"the medium holds {len(offered)} bundles; expected one")
    current = state.current
    if current is not None and _digest(offered[0]) == current.sha256:
        return None
    try:
        verified = bundles.take(root, offered[0], identity, state)
    except AgentError as refused:
        record(root, "refused", code=refused.code, reason=refused.text, source="medium")
        return refused
    pointer = bundles.pointer_to(verified)
    if current is not None and pointer.serial <= state.serial:
        return AgentError("older-serial", f"the medium's serial {pointer.serial} is not above {state.serial}")
    state.stage_identity(_identity(place / "identity"))
    state.stage(verified.bundle.content, pointer)
    pending = Pending(Phase.TRIAL, token_hex(8), "adopt", pointer, current)
    state.commit(pending, verified.crl)
    finish(root, state)
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _identity(source: Path) -> dict[str, bytes]:
    """Return the identity that comes with a bundle: plain files of a sane size only."""
    found: dict[str, bytes] = {}
    if not source.is_dir():
        return found
    try:
        for path in sorted(source.iterdir())[:_IDENTITY_FILES]:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as stream:
                plain = stat.S_ISREG(os.fstat(descriptor).st_mode)
                content = stream.read(_IDENTITY_BYTES + 1) if plain else b""
            if plain and len(content) <= _IDENTITY_BYTES and not path.name.startswith("."):
                found[path.name] = content
    except OSError as failed:
        raise AgentError("unreadable", f"the medium's identity cannot be read: {failed}") from failed
    return found
