"""The authorities of a network's ends, as a bundle carries them: whom relay and management trust, whose lists count.

They are files of the bundle, so that its operators have signed for them: no medium and no upload brings a trust anchor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from appliance_image.bundle.certificate import (
    Certificate,
    RevocationList,
    certificate_pem,
    certificates,
    list_pem,
    name_text,
)
from appliance_image.bundle.der import DerError
from appliance_image.bundle.openssl import check_authority, list_holds
from appliance_image.bundle.refused import Code, Refused

TRUST, ISSUERS = "authorities/trust.pem", "authorities/issuers.pem"
"""Files of a bundle: the roots, and what they have certified that certifies ends."""
_RELAY = "relay/haproxy.cfg"
_MOST_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Authorities:
    """Roots and issuers."""

    trust: bytes = field(repr=False)
    """The roots (PEM): trust anchors."""
    issuers: bytes = field(repr=False)
    """All others (PEM); may be empty."""
    known: tuple[Certificate, ...] = field(repr=False)
    """All of them."""

    @classmethod
    def read(cls, files: Mapping[str, bytes]) -> Authorities:
        """Return those of a bundle's files.

        Raises:
            Refused: There are none (no-authorities), or what is there is something else (false-authority).

        """
        if TRUST not in files:
            raise Refused(Code.NO_AUTHORITIES, f"it holds no {TRUST}: nobody's certificate could be judged")
        trust, issuers = files[TRUST], files.get(ISSUERS, b"")
        roots = _read(trust, TRUST)
        others = _read(issuers, ISSUERS) if issuers else []
        if not roots or not all(_is_root(each) for each in roots) or any(_is_root(each) for each in others):
            raise Refused(Code.FALSE_AUTHORITY, f"{TRUST} holds more than roots, or {ISSUERS} holds one")
        return cls(trust, issuers, (*roots, *others))

    @classmethod
    def of(cls, pem: bytes, now: datetime) -> Authorities:
        """Return those of a text with certificates of roots and issuers in any order, each held to its root.

        Raises:
            Refused: One is no authority, or not good now.
            OSError: ``openssl`` cannot be run.

        """
        found = _read(pem, "the authorities")
        roots, others = ([each for each in found if _is_root(each) is wanted] for wanted in (True, False))
        trust, issuers = (b"".join(certificate_pem(each.raw) for each in part) for part in (roots, others))
        made = cls.read({TRUST: trust, ISSUERS: issuers})
        for each in found:
            error = check_authority(certificate_pem(each.raw), issuers, trust, now)
            if error is not None:
                text = f"the authority '{name_text(each.subject)}': {error.text} ({error.number})"
                raise Refused(Code.FALSE_AUTHORITY, text)
        return made

    def files(self) -> dict[str, bytes]:
        """Return the files of a bundle that hold them."""
        return {TRUST: self.trust} | ({ISSUERS: self.issuers} if self.issuers else {})

    def issued(self, found: RevocationList) -> bool:
        """Tell whether one of them has signed a revocation list (RFC 5280, 6.3.3).

        Raises:
            OSError: ``openssl`` cannot be run.

        """
        mine = [each for each in self.known if each.subject.raw == found.issuer.raw and each.signs_lists]
        return any(list_holds(list_pem(found.raw), certificate_pem(each.raw)) for each in mine)

    def names(self) -> Iterable[bytes]:
        """Return the names of all of them, as their lists give them."""
        return dict.fromkeys(each.subject.raw for each in self.known)


def needed(files: Mapping[str, bytes]) -> bool:
    """Tell whether a firewall with these files judges certificates, and so must be told by whose."""
    return _RELAY in files


def _is_root(certificate: Certificate) -> bool:
    return certificate.subject.raw == certificate.issuer.raw


def _read(pem: bytes, what: str) -> list[Certificate]:
    if len(pem) > _MOST_BYTES:
        raise Refused(Code.FALSE_AUTHORITY, f"{what} has {len(pem)} bytes, and may have {_MOST_BYTES}")
    try:
        found = certificates(pem)
    except DerError as wrong:
        raise Refused(Code.FALSE_AUTHORITY, f"{what}: {wrong}") from wrong
    if not all(each.signs_certificates for each in found):
        raise Refused(Code.FALSE_AUTHORITY, f"{what} holds a certificate that is no authority's")
    return found
