"""The signatures of a bundle: CMS SignedData (RFC 5652) in a narrow form, taken apart by signer and put together again.

The form: version 1, content of type data that is not inside, certificates of the signers and no others, no revocation
lists; each SignerInfo names its certificate by issuer and serial number, has signed attributes and no unsigned ones.
All that no signature covers is settled by the rest, so that no byte of it can be another one. ``openssl cms -sign``
and the cryptography package make it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from appliance_image.bundle import der
from appliance_image.bundle.certificate import Certificate, read_certificate
from appliance_image.bundle.der import DerError, Element

CMS_BYTES = 64 << 10
"""The most that all signatures of a bundle may have together."""
SIGNERS = 8
"""The most signatures."""

_SIGNED_DATA = der.encode_oid("1.2.840.113549.1.7.2")
_ENCAPSULATED = der.encode(der.SEQUENCE, der.encode_oid("1.2.840.113549.1.7.1"))
_VERSION = der.encode(der.INTEGER, b"\x01")
_NULL = der.encode(der.NULL)
_SHA2 = "2.16.840.1.101.3.4.2."
_DIGESTS = {
    der.encode(der.SEQUENCE, der.encode_oid(_SHA2 + number), parameters): ecdsa
    for number, ecdsa in (("1", "2"), ("2", "3"), ("3", "4"))
    for parameters in (b"", _NULL)
}
"""Digests, and the last arc of ECDSA with them (RFC 5758, 3.2)."""
_ECDSA = "1.2.840.10045.4.3."
_RSA = der.encode(der.SEQUENCE, der.encode_oid("1.2.840.113549.1.1.1"), _NULL)


@dataclass(frozen=True, slots=True)
class Signature:
    """One signer's part."""

    info: bytes
    """SignerInfo."""
    digest: bytes
    """The digest's AlgorithmIdentifier."""
    certificate: Certificate

    def alone(self) -> bytes:
        """Return SignedData that holds this signature only."""
        return join([self])


def split(content: bytes) -> list[Signature]:
    """Return the signatures of SignedData; whether they are right, ``openssl`` says.

    Raises:
        DerError: It is not in the form of this module.

    """
    if len(content) > CMS_BYTES:
        raise DerError(f"it has {len(content)} bytes, and may have {CMS_BYTES}")
    kind, wrapped = der.decode(content, der.SEQUENCE).exactly(2)
    (data,) = der.expect(wrapped, der.context(0)).exactly(1)
    version, _, encapsulated, held, infos = der.expect(data, der.SEQUENCE).exactly(5)
    if (kind.raw, version.raw, encapsulated.raw) != (_SIGNED_DATA, _VERSION, _ENCAPSULATED):
        raise DerError("it is no detached SignedData of version 1")
    certificates = [read_certificate(each.raw) for each in der.expect(held, der.context(0)).children()]
    found = [_signature(each, certificates) for each in der.expect(infos, der.SET).children()]
    if len(found) > SIGNERS:
        raise DerError(f"it holds {len(found)} signatures, and may hold {SIGNERS}")
    if join(found) != content:
        raise DerError("it holds more than its signatures, or in another order")
    return found


def join(signatures: Iterable[Signature]) -> bytes:
    """Return SignedData with these signatures."""
    parts = list(signatures)
    data = der.encode(
        der.SEQUENCE,
        _VERSION,
        der.encode_set(part.digest for part in parts),
        _ENCAPSULATED,
        der.encode_set((part.certificate.raw for part in parts), der.context(0)),
        der.encode_set(part.info for part in parts),
    )
    return der.encode(der.SEQUENCE, _SIGNED_DATA, der.encode(der.context(0), data))


def _signature(info: Element, certificates: Iterable[Certificate]) -> Signature:
    version, signer, digest, attributes, algorithm, value = der.expect(info, der.SEQUENCE).exactly(6)
    issuer, serial = der.expect(signer, der.SEQUENCE).exactly(2)
    der.expect(attributes, der.context(0))
    der.expect(value, der.OCTET_STRING)
    if version.raw != _VERSION or digest.raw not in _DIGESTS:
        raise DerError("a signature is not of version 1 with SHA-2")
    if algorithm.raw not in {_RSA, der.encode(der.SEQUENCE, der.encode_oid(_ECDSA + _DIGESTS[digest.raw]))}:
        raise DerError("a signature is neither RSA (PKCS #1 v1.5) nor ECDSA with its digest")
    matching = [each for each in certificates if (each.issuer.raw, each.serial_raw) == (issuer.raw, serial.raw)]
    if len(matching) != 1:
        raise DerError("the certificate of a signer is missing, or stands twice")
    return Signature(info.raw, digest.raw, matching[0])
