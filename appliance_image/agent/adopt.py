"""What a medium brings: at boot, a bundle that is newer than the one that runs, and valid, takes its place."""

from __future__ import annotations

import hashlib
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

_FILES, _TRUST = (CHAIN, KEY, LISTS), "trust.pem"


def adopt(root: Root, identity: Identity, state: State) -> AgentError | None:
    """Look for a medium, and adopt its bundle if it is newer and valid; return why it was not, if it was not.

    Whatever a medium holds, it can only be refused: the bundle that was confirmed runs then.

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
        return _refused(root, failed)


def adopt_from(root: Root, place: Path, identity: Identity, state: State) -> AgentError | None:
    """Adopt from a directory; see :func:`adopt`."""
    current = state.current
    try:
        content = media.bundle(place)
        if current is not None and hashlib.sha256(content).hexdigest() == current.sha256:
            return None
        verified = bundles.take(root, content, identity, state)
        files = _identity(root, media.identity(place), verified.bundle.files)
    except AgentError as refused:
        return _refused(root, refused)
    except (OSError, ValueError, RecursionError, MemoryError) as odd:
        return _refused(root, AgentError("unreadable", f"the medium cannot be judged: {odd!r}"))
    pointer = bundles.pointer_to(verified)
    if current is not None and pointer.serial <= state.serial:
        text = f"the medium's serial {pointer.serial} is not above {state.serial}"
        return _refused(root, AgentError("older-serial", text))
    state.stage_identity(files)
    state.stage(verified.bundle.content, pointer)
    pending = Pending(Phase.TRIAL, token_hex(8), "adopt", pointer, current)
    state.commit(pending, verified.crl)
    finish(root, state)
    return None


def _refused(root: Root, why: AgentError) -> AgentError:
    record(root, "refused", code=why.code, reason=why.text, source="medium")
    return why


def _identity(root: Root, offered: Mapping[str, bytes], bundle: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """Return the identity that comes with a bundle, good by that bundle's authorities; nothing if none comes.

    Raises:
        AgentError: It is not good, or is more than certificate, key and lists: nothing else is a medium's to bring.

    """
    found = dict(offered)
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
