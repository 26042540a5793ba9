"""A key of one's own on a card, and its certificate beside it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pkcs11
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pkcs11.constants import Attribute, CertificateType, ObjectClass
from pkcs11.util.ec import encode_named_curve_parameters

from appliance_image.bundle import der
from appliance_image.bundle.refused import Code, Refused
from appliance_image.signing.card import Card

LABEL = "netpolicy operator"
_IDENTIFIER_BYTES = 8


def enrol(card: Card, certify: Callable[[ec.EllipticCurvePublicKey], x509.Certificate]) -> x509.Certificate:
    """Make a P-256 key on a card that never leaves it, have it certified, and put the certificate beside it.

    Args:
        card: It must not hold a key that signs yet: which one is meant stays clear.
        certify: Makes the certificate. If it fails, the card is as it was.

    Raises:
        Refused: The card is not there, its PIN is not right, or it holds a key already (no-key).

    """
    with card.session(write=True) as login:
        session = login.session
        if list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.SIGN: True})):
            raise Refused(Code.NO_KEY, f"token '{card.token}' holds a key already, and operators use one")
        identifier = os.urandom(_IDENTIFIER_BYTES)
        curve = session.create_domain_parameters(
            pkcs11.KeyType.EC, {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}, local=True
        )
        public, private = curve.generate_keypair(
            store=True,
            id=identifier,
            label=LABEL,
            mechanism=pkcs11.Mechanism.EC_KEY_PAIR_GEN,
            capabilities=pkcs11.MechanismFlag.SIGN | pkcs11.MechanismFlag.VERIFY,
            private_template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.PRIVATE: True},
        )
        try:
            certificate = certify(_point(public))
            session.create_object(_template(certificate, identifier))
        except BaseException:
            private.destroy()
            public.destroy()
            raise
    return certificate


def _point(public: Any) -> ec.EllipticCurvePublicKey:
    point = der.decode(public[Attribute.EC_POINT], der.OCTET_STRING).content
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)


def _template(certificate: x509.Certificate, identifier: bytes) -> dict[Attribute, object]:
    return {
        Attribute.CLASS: ObjectClass.CERTIFICATE,
        Attribute.CERTIFICATE_TYPE: CertificateType.X_509,
        Attribute.TOKEN: True,
        Attribute.PRIVATE: False,
        Attribute.LABEL: LABEL,
        Attribute.ID: identifier,
        Attribute.SUBJECT: certificate.subject.public_bytes(),
        Attribute.ISSUER: certificate.issuer.public_bytes(),
        Attribute.VALUE: certificate.public_bytes(Encoding.DER),
    }


def new_key_file(path: Path) -> ec.EllipticCurvePublicKey:
    """Write a new private key to a file for its owner only (0600), and return the public one.

    Raises:
        OSError: There is such a file, or it cannot be written.

    """
    key = ec.generate_private_key(ec.SECP256R1())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key.public_key()
