"""Whether a bundle may be run: by whom it is signed, for whom, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta

from appliance_image.bundle import cms
from appliance_image.bundle.authorities import Authorities, needed
from appliance_image.bundle.certificate import Certificate, RevocationList, certificate_pem, list_pem, lists
from appliance_image.bundle.der import DerError
from appliance_image.bundle.manifest import Manifest
from appliance_image.bundle.model import Bundle, Signer, Verified
from appliance_image.bundle.openssl import ChainError, check_chain, signature_holds
from appliance_image.bundle.refused import Code, Refused
from appliance_image.bundle.trust import Trust

# X509_V_ERR_… of openssl's x509_vfy.h; what is not among them is a certificate that is not fit for this.
_STRANGER = frozenset({2, 18, 19, 20, 21, 27})
_REASONS = {
    **dict.fromkeys((4, 6, 7), Code.ALTERED),
    **dict.fromkeys((9, 10, 13, 14), Code.SIGNER_EXPIRED),
    # 3: there is no list that fits, though one of that name was given.
    **dict.fromkeys((3, 5, 8, 33, 35, 36, 44), Code.FALSE_CRL),
    **dict.fromkeys((11, 12, 15, 16), Code.STALE_CRL),
    23: Code.REVOKED,
}


@dataclass(frozen=True, slots=True)
class Signed:
    """Who has signed."""

    operators: tuple[Signer, ...]
    """Those who count."""
    others: tuple[Signer, ...]
    """Those whom no known authority certified."""
    crl: bytes
    """See :attr:`Verified.crl`."""


@dataclass(frozen=True, slots=True)
class _Lists:
    """The revocation lists that signers are held against."""

    bundled: tuple[RevocationList, ...]
    stored: tuple[RevocationList, ...]
    known: bool
    """Whether the bundle was accepted before."""

    def of(self, certificate: Certificate) -> RevocationList:
        """Return the newest list of a certificate's authority."""
        issuer = certificate.issuer.raw
        fresh, old = (_newest(each, issuer) for each in (self.bundled, self.stored))
        if fresh is None and (old is None or not self.known):
            raise Refused(Code.NO_CRL, f"it brings no revocation list of '{certificate.signer().issuer}'")
        if fresh is None or old is None:
            return fresh or old  # type: ignore[return-value] # the one that is there
        if _number(old) > _number(fresh):
            if not self.known:
                text = f"its revocation list has number {fresh.number}, and number {old.number} has been seen here"
                raise Refused(Code.OLDER_CRL, text)
            return old
        return fresh


def verify(
    bundle: Bundle,
    trust: Trust,
    *,
    firewall: str,
    managed_by: str,
    signatures: int,
    after_serial: int,
    now: datetime,
    crl: bytes | None = None,
    known: AbstractSet[str] = frozenset(),
    network: str | None = None,
) -> Verified:
    """Return what makes a bundle one that may be run.

    Args:
        bundle: What was read.
        trust: The authorities of managers' operators.
        firewall: It must be this one's.
        managed_by: The manager whose operators must have signed.
        signatures: How many different operators must have; the bundle may ask for more.
        after_serial: The highest serial that was accepted; 0 for none.
        now: The time.
        crl: The revocation lists (PEM) that were stored, of :attr:`Verified.crl`.
        known: SHA-256 of bundles that were accepted before, as the one that runs and the one to roll back to. Neither
            their serial nor their revocation list's age is held against them; all else is.
        network: It must be this one's, if given.

    Raises:
        Refused: It may not; says why.
        OSError: ``openssl`` cannot be run.

    """
    manifest = bundle.manifest
    signed = check_signers(bundle, trust, managed_by=managed_by, now=now, crl=crl, known=known)
    _check_operators(signed, max(signatures, manifest.signatures), managed_by)
    _check_place(manifest, network, firewall, managed_by)
    if bundle.sha256 not in known:
        _check_serial(manifest, after_serial)
    _check_time(manifest, now)
    if needed(bundle.files):
        Authorities.read(bundle.files)
    return Verified(bundle, signed.operators, signed.others, signed.crl)


def check_signers(
    bundle: Bundle,
    trust: Trust,
    *,
    managed_by: str,
    now: datetime,
    crl: bytes | None = None,
    known: AbstractSet[str] = frozenset(),
) -> Signed:
    """Return who has signed a bundle, as far as each of them might; the arguments are those of :func:`verify`.

    Raises:
        Refused: Nobody has, or one of the manager's operators has signed something else or may not.
        OSError: ``openssl`` cannot be run.

    """
    stored = _read_lists(crl or b"", "the stored list")
    held = _Lists(_read_lists(bundle.crl, "operators.crl"), stored, bundle.sha256 in known)
    return _count(
        _signatures(bundle), bundle.manifest_json, trust.authorities(managed_by), held, purpose=_BUNDLES, now=now
    )


def check_release(
    manifest: bytes, signature: bytes, *, authorities: bytes, crl: bytes, stored: bytes, signatures: int, now: datetime
) -> Signed:
    """Return who has signed an image update, as bundles are signed: different persons, none of them revoked.

    Args:
        manifest: What was signed.
        signature: SignedData (DER).
        authorities: Those of releases (PEM).
        crl: Their revocation lists that came with it (PEM).
        stored: Those that have been seen here (PEM); may be empty.
        signatures: How many different persons must have signed.
        now: The time.

    Raises:
        Refused: It may not be taken; says why.
        OSError: ``openssl`` cannot be run.

    """
    held = _Lists(_read_lists(crl, "the revocation list"), _read_lists(stored, "the stored list"), known=False)
    try:
        found = cms.split(signature)
    except DerError as wrong:
        raise Refused(Code.MALFORMED, f"its signatures: {wrong}") from wrong
    signed = _count(found, manifest, authorities, held, purpose=_RELEASES, now=now)
    if not signed.operators:
        raise Refused(Code.WRONG_SIGNER, "nobody who may has signed this image update")
    if len(signed.operators) < signatures:
        names = ", ".join(f"'{each.subject}'" for each in signed.operators)
        text = f"{signatures} different persons must sign an image for this firewall, and {len(signed.operators)} has"
        raise Refused(Code.TOO_FEW_OPERATORS, f"{text}: {names}")
    return signed


@dataclass(frozen=True, slots=True)
class _Purpose:
    """What signers must be certified for."""

    fit: Callable[[Certificate], bool]
    words: str


_BUNDLES = _Purpose(lambda certificate: certificate.signs_bundles, "the signing of bundles")
_RELEASES = _Purpose(lambda certificate: certificate.signs_code, "the signing of code")


def _count(
    signed: Iterable[cms.Signature],
    content: bytes,
    authorities: bytes,
    held: _Lists,
    *,
    purpose: _Purpose,
    now: datetime,
) -> Signed:
    """Return who has signed: each person and each key once, each looked into."""
    operators: list[Signer] = []
    others: list[Signer] = []
    used: list[RevocationList] = []
    for signature in signed:
        certificate = signature.certificate
        signer = certificate.signer()
        error = check_chain(certificate_pem(certificate.raw), authorities, None, now)
        if error is not None and error.number in _STRANGER:
            others.append(signer)
            continue
        if error is not None:
            raise _refused(error, signer)
        used.append(_check_signer(certificate, authorities, held, purpose, now))
        if not signature_holds(signature.alone(), content, authorities, now):
            raise Refused(Code.ALTERED, f"the signature of '{signer.subject}' is not over this manifest.json")
        if all(signer.person != each.person and signer.key_sha256 != each.key_sha256 for each in operators):
            operators.append(signer)
    return Signed(tuple(operators), tuple(others), _to_store(held.stored, used))


def _signatures(bundle: Bundle) -> list[cms.Signature]:
    if bundle.cms is None:
        raise Refused(Code.UNSIGNED, "nobody has signed it")
    try:
        found = cms.split(bundle.cms)
    except DerError as wrong:
        raise Refused(Code.MALFORMED, f"manifest.cms: {wrong}") from wrong
    if not found:
        raise Refused(Code.UNSIGNED, "nobody has signed it: manifest.cms holds no signature")
    return found


def _check_signer(
    certificate: Certificate, authorities: bytes, held: _Lists, purpose: _Purpose, now: datetime
) -> RevocationList:
    """Return the revocation list that the certificate of a manager's authority was held against."""
    signer = certificate.signer()
    if not purpose.fit(certificate):
        raise Refused(Code.WRONG_PURPOSE, f"the certificate of '{signer.subject}' is not for {purpose.words}")
    if signer.person is None:
        text = f"the certificate of '{signer.subject}' names no person: its subject needs one serialNumber"
        raise Refused(Code.WRONG_PURPOSE, text)
    revoked = held.of(certificate)
    error = check_chain(certificate_pem(certificate.raw), authorities, list_pem(revoked.raw), _when(revoked, held, now))
    if error is not None:
        raise _refused(error, signer)
    return revoked


def _when(revoked: RevocationList, held: _Lists, now: datetime) -> datetime:
    """Return the time at which to judge by a list: one that a bundle was accepted with does not grow stale for it."""
    if held.known and revoked.next_update is not None:
        return min(now, revoked.next_update - timedelta(seconds=1))
    return now


def _refused(error: ChainError, signer: Signer) -> Refused:
    code = _REASONS.get(error.number, Code.WRONG_PURPOSE)
    return Refused(code, f"the certificate of '{signer.subject}' by '{signer.issuer}': {error.text} ({error.number})")


def _check_operators(signed: Signed, needed: int, managed_by: str) -> None:
    if not signed.operators:
        names = ", ".join(f"'{each.subject}' by '{each.issuer}'" for each in signed.others)
        raise Refused(Code.WRONG_OPERATOR, f"no operator of '{managed_by}' has signed it, but {names}")
    if len(signed.operators) < needed:
        names = ", ".join(f"'{each.subject}'" for each in signed.operators)
        text = f"{needed} different operators of '{managed_by}' must sign it, and {len(signed.operators)} has: {names}"
        raise Refused(Code.TOO_FEW_OPERATORS, text)


def _check_place(manifest: Manifest, network: str | None, firewall: str, managed_by: str) -> None:
    if network is not None and manifest.network != network:
        raise Refused(Code.OTHER_NETWORK, f"it is of network '{manifest.network}', and this is '{network}'")
    if manifest.firewall != firewall:
        raise Refused(Code.OTHER_FIREWALL, f"it is for firewall '{manifest.firewall}', and this is '{firewall}'")
    if manifest.managed_by != managed_by:
        text = f"it says that '{manifest.managed_by}' manages the firewall, and '{managed_by}' does"
        raise Refused(Code.OTHER_MANAGER, text)


def _check_serial(manifest: Manifest, after: int) -> None:
    if manifest.serial < after:
        raise Refused(Code.OLDER_SERIAL, f"its serial is {manifest.serial}, and {after} has been accepted")
    if manifest.serial == after:
        raise Refused(Code.SAME_SERIAL, f"its serial is {after}, which another bundle had that has been accepted")


def _check_time(manifest: Manifest, now: datetime) -> None:
    if now < manifest.not_before:
        raise Refused(Code.NOT_YET_VALID, f"it is valid from {manifest.not_before:%Y-%m-%d %H:%M:%S} UTC")
    if now >= manifest.not_after:
        raise Refused(Code.EXPIRED, f"it was valid until {manifest.not_after:%Y-%m-%d %H:%M:%S} UTC")


def _read_lists(pem: bytes, what: str) -> tuple[RevocationList, ...]:
    try:
        found = tuple(lists(pem))
    except DerError as wrong:
        raise Refused(Code.FALSE_CRL, f"{what}: {wrong}") from wrong
    if any(each.number is None or each.next_update is None for each in found):
        raise Refused(Code.FALSE_CRL, f"{what}: a revocation list has no number, or no time of the next one")
    return found


def _number(found: RevocationList) -> tuple[int, datetime]:
    return found.number or 0, found.this_update


def _newest(found: Iterable[RevocationList], issuer: bytes) -> RevocationList | None:
    return max((each for each in found if each.issuer.raw == issuer), key=_number, default=None)


def _to_store(stored: Iterable[RevocationList], used: Iterable[RevocationList]) -> bytes:
    """Return the lists to keep: those that were judged by, and what was stored of other authorities."""
    newest = {each.issuer.raw: each for each in (*sorted(stored, key=_number), *sorted(used, key=_number))}
    return b"".join(list_pem(newest[issuer].raw) for issuer in sorted(newest))
