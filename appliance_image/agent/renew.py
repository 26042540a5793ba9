"""A renewed certificate and newer revocation lists of this firewall, in the place of those that it has.

They are what its relays show and hold others against, and so is its management. Whose they may be the bundle says.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex

from appliance_image.agent import daemons, services
from appliance_image.agent.bundles import authorities_of
from appliance_image.agent.ends import candidate, check_certificate, check_key, check_lists
from appliance_image.agent.errors import AgentError
from appliance_image.agent.loaded import recall
from appliance_image.agent.lock import DAEMONS, locked
from appliance_image.agent.records import record, reserve
from appliance_image.agent.recover import finish
from appliance_image.agent.root import Root
from appliance_image.agent.state import Pending, Phase, State
from appliance_image.agent.validity import CHAIN, KEY, LISTS, Validity, chain_of, validity
from netpolicy.inputs import open_regular

MOST_BYTES = 1 << 18
"""Of each file."""
_RECORDS = 8


def offered(directory: Path) -> dict[str, bytes]:
    """Return what a directory offers: chain, lists, and the key if there is one.

    Raises:
        AgentError: One is missing, or cannot be read.

    """
    found = {}
    for name in (CHAIN, LISTS, KEY):
        try:
            with os.fdopen(open_regular(directory / name), "rb") as stream:
                found[name] = stream.read(MOST_BYTES + 1)  # what is too large is judged, and journalled, below
        except FileNotFoundError:
            if name != KEY:
                raise AgentError("malformed", f"{directory} has no {name}") from None
        except OSError as failed:
            raise AgentError("unreadable", f"{directory / name} cannot be read: {failed.strerror}") from None
    return found


def renew(root: Root, files: Mapping[str, bytes]) -> Validity:
    """Have a certificate and lists in the place of the present ones.

    Living connections go on, unless the lists revoke somebody who was not: then all are ended.

    Args:
        root: Where everything is.
        files: ``chain.pem``, ``crl.pem``, and ``key.pem`` if the certificate is for another key.

    Raises:
        AgentError: They are refused, or the relay does not take them: what was there is there.

    """
    with locked(root, wait=False):
        recall(root)
        state = State(root)
        state.prepare()
        reserve(root, _RECORDS)
        finish(root, state)
        if state.pending is not None:
            raise AgentError("on-trial", "a bundle is on trial: confirm it, or roll it back, before this")
        try:
            held = _held(root)
            now = datetime.now(UTC)
            found, revoking = _checked(root, held, {**held, **files}, now)
        except AgentError as refused:
            record(root, "refused", code=refused.code, reason=refused.text, source="renew")
            raise
        _put(root, state, {name: found[name] for name in (CHAIN, KEY, LISTS)})
        with locked(root, wait=True, what=DAEMONS):
            try:
                if revoking:
                    # Who is revoked may have a connection, and the relay cannot tell whose they are: all begin anew.
                    daemons.start_relay(root, root.bundle)
                else:
                    daemons.reload_relay(root, root.bundle)
            except (AgentError, OSError):
                _put(root, state, {name: held[name] for name in (CHAIN, KEY, LISTS)})
                daemons.start_relay(root, root.bundle)
                raise
        if (root.bundle / services.MANAGEMENT_FILE).is_file():
            # Its files are copies, which the service manager made when it began.
            services.restart(root, [services.MANAGEMENT])
        return validity(found[CHAIN], found[LISTS], now)


def _held(root: Root) -> dict[str, bytes]:
    try:
        return {name: (root.identity / name).read_bytes() for name in (CHAIN, KEY, LISTS)}
    except OSError as missing:
        raise AgentError("no-identity", f"this firewall has no identity to renew: {missing}") from missing


def _put(root: Root, state: State, files: Mapping[str, bytes]) -> None:
    """Have files of the identity on the disk, all of them or none, and recorded."""
    current = state.current
    if current is None:
        raise AgentError("state", "no bundle was ever confirmed")
    state.stage_identity(files)
    state.commit(Pending(Phase.COMMIT, token_hex(8), "renew", current, state.previous), None)
    finish(root, state)


def _checked(
    root: Root, held: Mapping[str, bytes], wanted: Mapping[str, bytes], now: datetime
) -> tuple[Mapping[str, bytes], bool]:
    """Return what is wanted, if it is good, and whether it revokes somebody who was not."""
    for name, content in wanted.items():
        if len(content) > MOST_BYTES:
            raise AgentError("oversize", f"{name} has more than {MOST_BYTES} bytes")
    if all(wanted[name] == held[name] for name in (CHAIN, KEY, LISTS)):
        raise AgentError("same", "certificate, key and lists are those that are here")
    if chain_of(wanted[CHAIN])[0].names != chain_of(held[CHAIN])[0].names:
        raise AgentError("other-names", "the certificate does not have the names of the one that is here")
    authorities = authorities_of(root.bundle)
    revoking = check_lists(held[LISTS], wanted[LISTS], authorities, now)
    check_certificate(wanted, authorities, now)
    check_key(root, wanted)
    with candidate(root, wanted) as place:
        daemons.check_relay(root, root.bundle, place)
    return wanted, revoking
