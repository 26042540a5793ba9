"""What a medium brings: at boot, a bundle that is newer than the one that runs, and valid, takes its place."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex

from appliance_image.agent import bundles, media
from appliance_image.agent.ends import check_certificate, check_key, check_lists
from appliance_image.agent.errors import AgentError
from appliance_image.agent.identity import Identity
from appliance_image.agent.records import record
from appliance_image.agent.recover import finish
from appliance_image.agent.root import Root
from appliance_image.agent.state import Pending, Phase, State
from appliance_image.agent.validity import CHAIN, KEY, LISTS, chain_of
from appliance_image.bundle import Refused
from appliance_image.bundle.authorities import Authorities

_SUFFIX = "*.bundle"
_FILES, _TRUST = (CHAIN, KEY, LISTS), "trust.pem"
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
        files = _identity(root, place / "identity", verified.bundle.files)
    except AgentError as refused:
        record(root, "refused", code=refused.code, reason=refused.text, source="medium")
        return refused
    pointer = bundles.pointer_to(verified)
    if current is not None and pointer.serial <= state.serial:
        return AgentError("older-serial", f"the medium's serial {pointer.serial} is not above {state.serial}")
    state.stage_identity(files)
    state.stage(verified.bundle.content, pointer)
    pending = Pending(Phase.TRIAL, token_hex(8), "adopt", pointer, current)
    state.commit(pending, verified.crl)
    finish(root, state)
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _identity(root: Root, source: Path, bundle: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """Return the identity that comes with a bundle, good by that bundle's authorities; nothing if none comes.

    Raises:
        AgentError: It is not good, or is more than certificate, key and lists: nothing else is a medium's to bring.

    """
    found = dict(_offered(source))
    trust = found.pop(_TRUST, None)
    if not found and trust is None:
        return {}
    try:
        authorities = Authorities.read(bundle)
    except Refused as refused:
        raise AgentError(refused.code, f"{refused.text}, and an identity came with it") from refused
    if trust is not None and trust.split() != authorities.trust.split():
        raise AgentError("other-trust", f"the medium's {_TRUST} is not the bundle's, and only that counts")
    stranger = next((name for name in found if name not in _FILES), None)
    if stranger is not None:
        raise AgentError("malformed", f"the medium's identity holds '{stranger}'; expected {', '.join(_FILES)}")
    held = {name: (root.identity / name).read_bytes() for name in _FILES if (root.identity / name).exists()}
    wanted = {**held, **found}
    missing = [name for name in _FILES if name not in wanted]
    if missing:
        raise AgentError("malformed", f"the medium's identity lacks {missing[0]}")
    if CHAIN in held and chain_of(held[CHAIN])[0].names != chain_of(wanted[CHAIN])[0].names:
        raise AgentError("other-names", "the medium's certificate does not have the names of the one that is here")
    now = datetime.now(UTC)
    check_lists(held.get(LISTS, b""), wanted[LISTS], authorities, now)
    check_certificate(wanted, authorities, now)
    check_key(root, wanted)
    return found


def _offered(source: Path) -> dict[str, bytes]:
    """Return the files of a medium's identity: plain ones of a sane size only."""
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
