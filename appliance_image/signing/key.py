"""Keys that sign: one on a card that is reached through PKCS #11, in the form that the cryptography package takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pkcs11
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from appliance_image.bundle import der

_DIGEST_NAMES = {"sha256": "1", "sha384": "2", "sha512": "3"}
"""The last arc of the digest's identifier (RFC 5754, 2)."""
CardKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key, and the certificate of the operator who holds it."""

    private: CardKey
    certificate: x509.Certificate
    where: str
    """What holds it, to show and to record."""

    def digest(self) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512:
        """Return the digest that goes with the key."""
        if isinstance(self.private, ec.EllipticCurvePrivateKey) and self.private.key_size > 384:
            return hashes.SHA512()
        if isinstance(self.private, ec.EllipticCurvePrivateKey) and self.private.key_size > 256:
            return hashes.SHA384()
        return hashes.SHA256()


def _stays(*_: Any) -> Any:
    raise TypeError("the key stays on the card")


_refused: Any = _stays
"""What the interfaces of the cryptography package ask for beside signing."""


class EllipticCardKey(ec.EllipticCurvePrivateKey):
    """An elliptic-curve key on a card: digests go in, signatures come out (CKM_ECDSA, which all such cards have)."""

    def __init__(self, key: Any, public: ec.EllipticCurvePublicKey, pin: str | None) -> None:
        self._key, self._public, self._pin = key, public, pin

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Return the signature (DER) over the digest of `data`."""
        algorithm = signature_algorithm.algorithm
        if isinstance(algorithm, utils.Prehashed):
            raise TypeError("what is signed is not digested yet")
        plain = self._key.sign(_digest(data, algorithm), mechanism=pkcs11.Mechanism.ECDSA, pin=self._pin)
        half = len(plain) // 2
        return utils.encode_dss_signature(int.from_bytes(plain[:half], "big"), int.from_bytes(plain[half:], "big"))

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the public key."""
        return self._public

    @property
    def curve(self) -> ec.EllipticCurve:
        """The curve."""
        return self._public.curve

    @property
    def key_size(self) -> int:
        """In bits."""
        return self._public.key_size

    exchange = private_numbers = private_bytes = __copy__ = __deepcopy__ = _refused


class RsaCardKey(rsa.RSAPrivateKey):
    """An RSA key on a card (CKM_RSA_PKCS: PKCS #1 v1.5, RFC 8017, 8.2)."""

    def __init__(self, key: Any, public: rsa.RSAPublicKey, pin: str | None) -> None:
        self._key, self._public, self._pin = key, public, pin

    def sign(
        self,
        data: Any,
        padding: Any,
        algorithm: Any,
    ) -> bytes:
        """Return the signature over the digest of `data`."""
        if not isinstance(padding, _PKCS1):
            raise TypeError("the only padding is PKCS #1 v1.5")
        name = der.encode_oid(f"2.16.840.1.101.3.4.2.{_DIGEST_NAMES[algorithm.name]}")
        kind = der.encode(der.SEQUENCE, name, der.encode(der.NULL))
        info = der.encode(der.SEQUENCE, kind, der.encode(der.OCTET_STRING, _digest(data, algorithm)))
        return bytes(self._key.sign(info, mechanism=pkcs11.Mechanism.RSA_PKCS, pin=self._pin))

    def public_key(self) -> rsa.RSAPublicKey:
        """Return the public key."""
        return self._public

    @property
    def key_size(self) -> int:
        """In bits."""
        return self._public.key_size

    decrypt = private_numbers = private_bytes = __copy__ = __deepcopy__ = _refused


_PKCS1 = padding.PKCS1v15


def _digest(data: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
    digest = hashes.Hash(algorithm)
    digest.update(data)
    return digest.finalize()
