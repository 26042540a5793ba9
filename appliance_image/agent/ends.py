"""Whether a certificate and revocation lists of this firewall are good, by the authorities of a bundle."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from appliance_image.agent.errors import AgentError
from appliance_image.agent.root import Root
from appliance_image.agent.validity import CHAIN, KEY, LISTS, chain_of, lists_of
from appliance_image.bundle.authorities import Authorities
from appliance_image.bundle.certificate import RevocationList, certificate_pem, name_text
from appliance_image.bundle.openssl import check_authority, check_end

_SKEW = timedelta(minutes=5)
"""Clocks of an authority and of an appliance differ."""
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


def check_certificate(files: Mapping[str, bytes], authorities: Authorities, now: datetime) -> None:
    """Hold a certificate against the authorities and its own new lists.

    Args:
        files: ``chain.pem`` and ``crl.pem``.
        authorities: Of the bundle.
        now: The time.

    Raises:
        AgentError: It is not good.

    """
    leaf, *rest = chain_of(files[CHAIN])
    others = b"".join(certificate_pem(each.raw) for each in rest)
    error = check_end(certificate_pem(leaf.raw), others, authorities.trust, files[LISTS], now)
    if error is not None:
        raise AgentError(_CODES.get(error.number, "wrong-purpose"), f"the certificate: {error.text} ({error.number})")


def check_key(root: Root, files: Mapping[str, bytes]) -> None:
    """Hold a key against its certificate.

    Args:
        root: Where everything is.
        files: ``chain.pem`` and ``key.pem``.

    Raises:
        AgentError: They do not fit.

    """
    with candidate(root, files) as place:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(place / CHAIN, place / KEY, _no_password)
        except (ssl.SSLError, OSError, ValueError) as wrong:
            raise AgentError("other-key", f"the certificate is not for this key: {wrong}") from None


def check_root(chain: bytes, authorities: Authorities) -> None:
    """Hold a certificate to the roots of a bundle, whether its time is over or not.

    Raises:
        AgentError: It is of another root: the relay would show it to nobody who takes it.

    """
    leaf, *rest = chain_of(chain)
    others = b"".join(certificate_pem(each.raw) for each in rest) + authorities.issuers
    at = leaf.not_after - timedelta(seconds=1)
    error = check_authority(certificate_pem(leaf.raw), others, authorities.trust, at)
    if error is not None and _CODES.get(error.number) in {"wrong-authority", "altered"}:
        text = f"this firewall's certificate does not lead to a root of the bundle: {error.text} ({error.number})"
        raise AgentError("wrong-authority", text)


def check_lists(held: bytes, wanted: bytes, authorities: Authorities, now: datetime) -> bool:
    """Hold new lists against the authorities, the time and those that are here; tell whether they revoke more.

    A number counts only in a list that its authority has signed: of a list here as well.

    Args:
        held: Those that are here (PEM); may be empty.
        wanted: The new ones (PEM): one of each authority.
        authorities: Of the bundle.
        now: The time.

    Raises:
        AgentError: They are not good.

    """
    fresh = lists_of(wanted)
    by_issuer = {each.issuer.raw: each for each in fresh}
    if len(by_issuer) != len(fresh):
        raise AgentError("malformed", "two lists are of one authority")
    for each in fresh:
        _check_list(each, authorities, now)
    missing = [each for each in authorities.known if each.subject.raw not in by_issuer]
    if missing:
        raise AgentError("no-crl", f"there is no list of '{name_text(missing[0].subject)}'")
    before = {each.issuer.raw: each for each in (lists_of(held) if held else ())}
    more = False
    for after in fresh:
        old = before.get(after.issuer.raw)
        if old is None or (old.raw != after.raw and not authorities.issued(old)):
            more = more or bool(after.revoked)
            continue
        if _age(after) < _age(old):
            text = f"the list of '{name_text(old.issuer)}' has number {after.number}, and {old.number} is here"
            raise AgentError("older-crl", text)
        more = more or bool(after.revoked - old.revoked)
    return more


def _check_list(found: RevocationList, authorities: Authorities, now: datetime) -> None:
    name = name_text(found.issuer)
    if found.issuer.raw not in authorities.names():
        raise AgentError("unknown-authority", f"there is a list of '{name}', which is no authority of the bundle")
    if not authorities.issued(found):
        raise AgentError("false-crl", f"the list of '{name}' is not what that authority has signed")
    if found.next_update is None or found.next_update <= now:
        raise AgentError("stale-crl", f"the list of '{name}' is over")
    if found.this_update > now + _SKEW:
        raise AgentError("stale-crl", f"the list of '{name}' is not yet valid")


def _age(found: RevocationList) -> tuple[int, datetime]:
    return found.number or 0, found.this_update


def _no_password() -> str:
    """Be asked instead of whoever sits before a terminal: a key that needs one is of no use to a relay."""
    return ""


@contextmanager
def candidate(root: Root, files: Mapping[str, bytes]) -> Iterator[Path]:
    """Have files of an identity in a directory in memory, which only root sees, while inside."""
    place = root.run / "renewal"
    shutil.rmtree(place, ignore_errors=True)
    root.run.mkdir(parents=True, exist_ok=True)
    place.mkdir(mode=0o700)
    try:
        for name, content in files.items():
            (place / name).touch(mode=0o600, exist_ok=False)
            (place / name).write_bytes(content)
        yield place
    finally:
        shutil.rmtree(place)
