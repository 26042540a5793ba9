"""Messages that only their receiver reads, and whose sender is certain: relays on the way hold neither key.

HPKE (RFC 9180, base mode) for the receiver's sealing key; inside, the sender's certificate and its signature.  What a
message is about, its direction, service and for an answer the request it belongs to, is bound into both.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from conformance.application.message import MessageError
from conformance.pki.identities import Identity

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_LABEL = b"netpolicy sealed message 1\0"
_LENGTH = struct.Struct("!H")
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Opened:
    """What was in a sealed message."""

    content: bytes
    uri: str
    """The sender's, from its certificate."""
    answer_key: bytes
    """The sender's sealing key, for an answer."""


def about(direction: str, service: str, request: bytes = b"") -> bytes:
    """Return what a message is about: `request` is the sealed request that an answer belongs to."""
    return b"\0".join((_LABEL, direction.encode(), service.encode(), hashlib.sha256(request).digest()))


def seal(identity: Identity, receiver: bytes, content: bytes, subject: bytes) -> bytes:
    """Return a sealed message.

    Args:
        identity: The sender's.
        receiver: Its public sealing key (X25519, 32 bytes).
        content: What to say.
        subject: See :func:`about`.

    """
    key = load_pem_private_key(identity.key.read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)  # noqa: S101 - identities have no other keys
    chain = b"".join(
        each.public_bytes(Encoding.DER) for each in x509.load_pem_x509_certificates(identity.chain.read_bytes())
    )
    own = identity.sealing_public.read_bytes()
    signature = key.sign(_signed(subject, receiver, own, content), ECDSA(hashes.SHA256()))
    inner = b"".join((own, _measured(chain), _measured(signature), content))
    return _SUITE.encrypt(inner, X25519PublicKey.from_public_bytes(receiver), subject)


def unseal(identity: Identity, sealed: bytes, subject: bytes) -> Opened:
    """Open a sealed message.

    Args:
        identity: The receiver's, with its trust and revocation lists as they are now.
        sealed: What came.
        subject: What it must be about.

    Raises:
        MessageError: It is not for this receiver or about something else, or its sender is not certain.

    """
    try:
        own = X25519PrivateKey.from_private_bytes(identity.sealing_key.read_bytes())
        inner = _SUITE.decrypt(sealed, own, subject)
        answer_key, rest = inner[:_KEY_BYTES], inner[_KEY_BYTES:]
        chain, rest = _part(rest)
        signature, content = _part(rest)
        leaf, issuer = _certificates(chain)
        uri = _verified(identity, leaf, issuer)
        key = leaf.public_key()
        if not isinstance(key, EllipticCurvePublicKey):
            raise MessageError("the sender's key is of another kind")
        receiver = own.public_key().public_bytes_raw()
        key.verify(signature, _signed(subject, receiver, answer_key, content), ECDSA(hashes.SHA256()))
    except InvalidTag as failed:
        raise MessageError("it was not sealed for this receiver and purpose") from failed
    except InvalidSignature as failed:
        raise MessageError("it was not signed by whom it names") from failed
    except (ValueError, struct.error) as failed:
        raise MessageError(f"this is not a sealed message: {failed}") from failed
    return Opened(content, uri, answer_key)


def _signed(subject: bytes, receiver: bytes, answer_key: bytes, content: bytes) -> bytes:
    return b"".join((_measured(subject), receiver, answer_key, content))


def _measured(part: bytes) -> bytes:
    return _LENGTH.pack(len(part)) + part


def _part(rest: bytes) -> tuple[bytes, bytes]:
    (length,) = _LENGTH.unpack_from(rest)
    begin = _LENGTH.size
    if len(rest) < begin + length:
        raise ValueError("it ends too early")
    return rest[begin : begin + length], rest[begin + length :]


def _certificates(chain: bytes) -> tuple[x509.Certificate, x509.Certificate]:
    """Return the leaf and its issuer from DER, one after the other."""
    size = 4 + int.from_bytes(chain[2:4], "big")  # SEQUENCE with two octets of length, as all of this size have
    return x509.load_der_x509_certificate(chain[:size]), x509.load_der_x509_certificate(chain[size:])


def _verified(identity: Identity, leaf: x509.Certificate, issuer: x509.Certificate) -> str:
    """Return the URI of a certificate that is trusted and not revoked.

    Raises:
        MessageError: It is not, or names not exactly one URI.

    """
    roots = x509.load_pem_x509_certificates(identity.trust.read_bytes())
    now = datetime.now(UTC)
    try:
        verified = PolicyBuilder().store(Store(roots)).time(now).build_client_verifier().verify(leaf, [issuer])
    except VerificationError as failed:
        raise MessageError(f"the sender's certificate is not trusted: {failed}") from failed
    for certificate, above in zip(verified.chain, verified.chain[1:], strict=False):
        _refuse_revoked(identity, certificate, above, now)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise MessageError(f"the sender's certificate names {len(uris)} URIs")
    return uris[0]


def _refuse_revoked(identity: Identity, certificate: x509.Certificate, above: x509.Certificate, now: datetime) -> None:
    key = above.public_key()
    for pem in _pem_blocks(identity.crl.read_bytes()):
        revoked = x509.load_pem_x509_crl(pem)
        if revoked.issuer != certificate.issuer or not isinstance(key, EllipticCurvePublicKey):
            continue
        if not revoked.is_signature_valid(key) or revoked.next_update_utc is None or revoked.next_update_utc < now:
            continue
        if revoked.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
            raise MessageError("the sender's certificate is revoked")
        return
    raise MessageError("there is no current revocation list of the sender's issuer")


_END = b"-----END X509 CRL-----\n"


def _pem_blocks(lists: bytes) -> list[bytes]:
    return [block + _END for block in lists.split(_END) if block.strip()]
