"""Signatures of the firmware's programs by a key on a card (Windows Authenticode Portable Executable Signature Format).

A key in a file signs with systemd-sbsign. That would reach a card through a provider of OpenSSL only, with the PIN in
an address and nobody to count wrong ones: so a card signs here, in the way that it signs bundles.
"""

from __future__ import annotations

import hashlib
import struct
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from appliance_image.bundle import der
from appliance_image.signing.key import SigningKey

_SIGNATURE_AT = 0x3C
"""Of a PE file: where the offset of its header stands."""
_OPTIONAL, _CHECKSUM, _DIRECTORIES, _SECURITY = 24, 64, 112, 4
"""The optional header's offset from the header; the check sum's and the data directories' (PE32+) from that; and which
of the directories is the certificate table."""
_PE32_PLUS = 0x20B
_CERTIFICATE_REVISION, _CERTIFICATE_KIND = 0x0200, 0x0002
"""Of WIN_CERTIFICATE: 2.0, PKCS #7."""
_ALIGNED = 8
_OBSOLETE = "<<<Obsolete>>>".encode("utf-16-be")
_INDIRECT, _IMAGE_DATA = (der.encode_oid(f"1.3.6.1.4.1.311.2.1.{arc}") for arc in (4, 15))
_SIGNED_DATA, _CONTENT_TYPE, _MESSAGE_DIGEST, _SIGNING_TIME = (
    der.encode_oid(f"1.2.840.113549.1.{arc}") for arc in ("7.2", "9.3", "9.4", "9.5")
)
_NULL = der.encode(der.NULL)
_SHA256 = der.encode(der.SEQUENCE, der.encode_oid("2.16.840.1.101.3.4.2.1"), _NULL)
_RSA = der.encode(der.SEQUENCE, der.encode_oid("1.2.840.113549.1.1.1"), _NULL)
_ONE = der.encode(der.INTEGER, b"\x01")


class NotSignedError(ValueError):
    """It cannot be signed; holds why."""


def sign(image: bytes, key: SigningKey, at: datetime) -> bytes:
    """Return a program with a signature.

    Args:
        image: PE32+, without a signature.
        key: RSA, which is the only kind that every firmware knows.
        at: The signing time.

    Raises:
        NotSignedError: It is no such program, the key is not RSA, or the certificate is of another key.

    """
    public = key.certificate.public_key()
    if not isinstance(key.private, rsa.RSAPrivateKey) or not isinstance(public, rsa.RSAPublicKey):
        raise NotSignedError("the key is not RSA, which is the only kind that every firmware knows")
    whole = image + bytes(-len(image) % _ALIGNED)
    content = _content(digest(whole))
    # The digest is over the content without its own tag and length (RFC 2315, 9.3).
    inner = der.decode(content, der.SEQUENCE).content
    attributes = [
        _attribute(_CONTENT_TYPE, _INDIRECT),
        _attribute(_SIGNING_TIME, der.encode(der.UTC_TIME, f"{at:%y%m%d%H%M%SZ}".encode("ascii"))),
        _attribute(_MESSAGE_DIGEST, der.encode(der.OCTET_STRING, hashlib.sha256(inner).digest())),
    ]
    signed = der.encode_set(attributes)
    signature = key.private.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    try:
        public.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        raise NotSignedError("the certificate is of another key than the one that signs") from None
    return _attached(whole, _signed_data(content, key.certificate, attributes, signature))


def digest(image: bytes) -> bytes:
    """Return what is signed of a program: SHA-256 of all but its check sum, and its certificate table with its entry.

    Raises:
        NotSignedError: It is no PE32+, or is signed already.

    """
    checksum, entry = _places(image)
    if struct.unpack_from("<II", image, entry) != (0, 0):
        raise NotSignedError("the program is signed already")
    found = hashlib.sha256(image[:checksum])
    found.update(image[checksum + 4 : entry])
    found.update(image[entry + 8 :])
    return found.digest()


def _places(image: bytes) -> tuple[int, int]:
    """Return where the check sum and the certificate table's directory entry stand."""
    try:
        (header,) = struct.unpack_from("<I", image, _SIGNATURE_AT)
        optional = header + _OPTIONAL
        (kind,) = struct.unpack_from("<H", image, optional)
        (count,) = struct.unpack_from("<I", image, optional + _DIRECTORIES - 4)
    except struct.error:
        raise NotSignedError("it is no program of the firmware") from None
    if image[header : header + 4] != b"PE\0\0" or kind != _PE32_PLUS or count <= _SECURITY:
        raise NotSignedError("it is no program of the firmware (PE32+)")
    return optional + _CHECKSUM, optional + _DIRECTORIES + 8 * _SECURITY


def _content(of: bytes) -> bytes:
    """Return SpcIndirectDataContent."""
    link = der.encode(der.context(0), der.encode(der.context(2), der.encode(0x80, _OBSOLETE)))
    data = der.encode(der.SEQUENCE, der.encode(der.BIT_STRING, b"\0"), link)
    info = der.encode(der.SEQUENCE, _SHA256, der.encode(der.OCTET_STRING, of))
    return der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, _IMAGE_DATA, data), info)


def _attribute(kind: bytes, value: bytes) -> bytes:
    return der.encode(der.SEQUENCE, kind, der.encode(der.SET, value))


def _signed_data(content: bytes, certificate: x509.Certificate, attributes: list[bytes], signature: bytes) -> bytes:
    """Return SignedData (RFC 2315, 9.1) with one signer."""
    raw = certificate.public_bytes(Encoding.DER)
    body = der.decode(raw, der.SEQUENCE).children()[0].children()
    # After the version: serial number, algorithm, issuer.
    issuer = der.encode(der.SEQUENCE, body[3].raw, body[1].raw)
    signer = der.encode(
        der.SEQUENCE,
        _ONE,
        issuer,
        _SHA256,
        der.encode_set(attributes, der.context(0)),
        _RSA,
        der.encode(der.OCTET_STRING, signature),
    )
    data = der.encode(
        der.SEQUENCE,
        _ONE,
        der.encode(der.SET, _SHA256),
        der.encode(der.SEQUENCE, _INDIRECT, der.encode(der.context(0), content)),
        der.encode(der.context(0), raw),
        der.encode(der.SET, signer),
    )
    return der.encode(der.SEQUENCE, _SIGNED_DATA, der.encode(der.context(0), data))


def _attached(image: bytes, signature: bytes) -> bytes:
    """Return a program with its certificate table, which stands at its end, and its check sum."""
    padded = signature + bytes(-len(signature) % _ALIGNED)
    table = struct.pack("<IHH", 8 + len(padded), _CERTIFICATE_REVISION, _CERTIFICATE_KIND) + padded
    checksum, entry = _places(image)
    found = bytearray(image + table)
    struct.pack_into("<II", found, entry, len(image), len(table))
    struct.pack_into("<I", found, checksum, _checksum(found, checksum))
    return bytes(found)


def _checksum(image: bytearray, place: int) -> int:
    """Return the check sum of a program: the sum of its 16-bit words with all carries added, and its size."""
    struct.pack_into("<I", image, place, 0)
    words = memoryview(bytes(image) + bytes(len(image) % 2)).cast("H")
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total + len(image)
