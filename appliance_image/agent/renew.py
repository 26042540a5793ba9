"""A renewed certificate and newer revocation lists of this firewall, in the place of those that it has.

They are what its relays show and hold others against, and so is its management.  Trust anchors never come this way.
"""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex

from appliance_image.agent import daemons, services
from appliance_image.agent.errors import AgentError
from appliance_image.agent.loaded import recall
from appliance_image.agent.lock import locked
from appliance_image.agent.records import record, reserve
from appliance_image.agent.recover import finish
from appliance_image.agent.root import Root
from appliance_image.agent.state import Pending, Phase, State
from appliance_image.agent.validity import CHAIN, KEY, LISTS, TRUST, Validity, chain_of, lists_of, validity
from appliance_image.bundle.certificate import RevocationList, certificate_pem, name_text
from appliance_image.bundle.openssl import check_end

MOST_BYTES = 1 << 18
"""Of each file."""
_RECORDS = 8
_SKEW = timedelta(minutes=5)
"""Clocks of an authority and of an appliance differ."""
_MANAGEMENT_FILE = "management.json"
# X509_V_ERR_… of openssl's x509_vfy.h; what is not among them is a certificate that is not fit for this.
_CODES = {
    **dict.fromkeys((2, 18, 19, 20, 21), "wrong-authority"),
    **dict.fromkeys((4, 6, 7), "altered"),
    9: "not-yet-valid",
    10: "expired",
    23: "revoked",
    3: "no-crl",
    **dict.fromkeys((5, 8, 15, 16, 33, 35, 36, 44), "false-crl"),
    **dict.fromkeys((11, 12), "stale-crl"),
}


def offered(directory: Path) -> dict[str, bytes]:
    """Return what a directory offers: chain, lists, and the key if there is one.

    Raises:
        AgentError: One is missing, or is larger than :data:`MOST_BYTES`.

    """
    found = {}
    for name in (CHAIN, LISTS, KEY):
        try:
            with (directory / name).open("rb") as stream:
                found[name] = stream.read(MOST_BYTES + 1)
        except FileNotFoundError:
            if name != KEY:
                raise AgentError("malformed", f"{directory} has no {name}") from None
        except OSError as failed:
            raise AgentError("unreadable", f"{directory / name} cannot be read: {failed.strerror}") from None
    return found


def renew(root: Root, files: Mapping[str, bytes]) -> Validity:
    """Have a certificate and lists in the place of the present ones; living connections go on.

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
            found = _checked(root, held, {**held, **files}, now)
        except AgentError as refused:
            record(root, "refused", code=refused.code, reason=refused.text, source="renew")
            raise
        _put(root, state, {name: found[name] for name in (CHAIN, KEY, LISTS)})
        try:
            daemons.reload_relay(root, root.bundle)
        except (AgentError, OSError):
            _put(root, state, {name: held[name] for name in (CHAIN, KEY, LISTS)})
            daemons.start_relay(root, root.bundle)
            raise
        if (root.bundle / _MANAGEMENT_FILE).is_file():
            # Its files are copies, which the service manager made when it began.
            services.restart(root, [services.MANAGEMENT])
        return validity(found[CHAIN], found[LISTS], now)


def _held(root: Root) -> dict[str, bytes]:
    try:
        return {name: (root.identity / name).read_bytes() for name in (CHAIN, KEY, LISTS, TRUST)}
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


def _checked(root: Root, held: Mapping[str, bytes], wanted: Mapping[str, bytes], now: datetime) -> Mapping[str, bytes]:
    """Return what is wanted, if it is good."""
    for name, content in wanted.items():
        if len(content) > MOST_BYTES:
            raise AgentError("oversize", f"{name} has more than {MOST_BYTES} bytes")
    if all(wanted[name] == held[name] for name in (CHAIN, KEY, LISTS)):
        raise AgentError("same", "certificate, key and lists are those that are here")
    leaf, *rest = chain_of(wanted[CHAIN])
    if leaf.names != chain_of(held[CHAIN])[0].names:
        raise AgentError("other-names", "the certificate does not have the names of the one that is here")
    _check_lists(lists_of(held[LISTS]), lists_of(wanted[LISTS]), now)
    others = b"".join(certificate_pem(each.raw) for each in rest)
    error = check_end(certificate_pem(leaf.raw), others, wanted[TRUST], wanted[LISTS], now)
    if error is not None:
        raise AgentError(_CODES.get(error.number, "wrong-purpose"), f"the certificate: {error.text} ({error.number})")
    with _candidate(root, wanted) as place:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(place / CHAIN, place / KEY, _no_password)
        except (ssl.SSLError, OSError, ValueError) as wrong:
            raise AgentError("other-key", f"the certificate is not for this key: {wrong}") from None
        daemons.check_relay(root, root.bundle, place)
    return wanted


def _no_password() -> str:
    """Be asked instead of whoever sits before a terminal: a key that needs one is of no use to a relay."""
    return ""


def _check_lists(held: list[RevocationList], wanted: list[RevocationList], now: datetime) -> None:
    """Hold new lists against those that are here.

    Whether they are of whom they name is seen where that authority is in the firewall's own chain; others' authorities
    come with their certificates only, and TLS judges their lists then.
    """
    by_issuer = {each.issuer.raw: each for each in wanted}
    if len(by_issuer) != len(wanted):
        raise AgentError("malformed", "two lists are of one authority")
    for each in wanted:
        name = name_text(each.issuer)
        if each.next_update is None or each.next_update <= now:
            raise AgentError("stale-crl", f"the list of '{name}' is over")
        if each.this_update > now + _SKEW:
            raise AgentError("stale-crl", f"the list of '{name}' is not yet valid")
    for before in held:
        after = by_issuer.get(before.issuer.raw)
        if after is None:
            raise AgentError("no-crl", f"there is no list of '{name_text(before.issuer)}' any more")
        if (after.number or 0) < (before.number or 0):
            text = f"the list of '{name_text(before.issuer)}' has number {after.number}, and {before.number} is here"
            raise AgentError("older-crl", text)


@contextmanager
def _candidate(root: Root, files: Mapping[str, bytes]) -> Iterator[Path]:
    """Have files of an identity in a directory in memory, which only root sees, while inside."""
    place = root.run / "renewal"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)
    try:
        for name, content in files.items():
            (place / name).touch(mode=0o600, exist_ok=False)
            (place / name).write_bytes(content)
        yield place
    finally:
        shutil.rmtree(place)
