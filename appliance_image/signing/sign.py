"""An operator's signature on a bundle, beside those that it has."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key, pkcs7

from appliance_image.bundle import cms
from appliance_image.bundle.archive import read_bytes, write
from appliance_image.bundle.certificate import read_certificate
from appliance_image.bundle.der import DerError
from appliance_image.bundle.model import Bundle, Signer
from appliance_image.bundle.refused import Code, Refused
from appliance_image.bundle.trust import Trust
from appliance_image.bundle.verify import Signed, check_signers
from appliance_image.signing.key import SigningKey
from appliance_image.signing.secret import read_secret

_OPTIONS = (
    pkcs7.PKCS7Options.DetachedSignature,
    pkcs7.PKCS7Options.Binary,
    pkcs7.PKCS7Options.NoCapabilities,
)


def signed_so_far(bundle: Bundle, trust: Trust, now: datetime) -> tuple[Signer, ...]:
    """Return the operators who have signed a bundle, each looked into.

    Raises:
        Refused: One of them has not, or may not, or somebody else has (see :func:`check_signers`).
        OSError: ``openssl`` cannot be run, or the authorities cannot be read.

    """
    if bundle.cms is None:
        trust.authorities(bundle.manifest.managed_by)
        return ()
    return _only_operators(check_signers(bundle, trust, managed_by=bundle.manifest.managed_by, now=now))


def add_signature(bundle: Bundle, key: SigningKey, trust: Trust, now: datetime) -> tuple[Bundle, tuple[Signer, ...]]:
    """Return the bundle with one signature more, and who has signed it then.

    What comes out is verified as an appliance does it, but for the number of signatures, which may still grow.

    Args:
        bundle: The signatures that it has are verified first.
        key: The operator's.
        trust: The authorities of managers' operators.
        now: The time.

    Raises:
        Refused: The bundle is not one to sign, the operator has signed it before, or may not sign it.
        OSError: ``openssl`` cannot be run, or the authorities cannot be read.

    """
    before = signed_so_far(bundle, trust, now)
    certificate = key.certificate.public_bytes(Encoding.DER)
    try:
        signer = read_certificate(certificate).signer()
    except DerError as wrong:
        raise Refused(Code.WRONG_PURPOSE, f"the operator's certificate: {wrong}") from wrong
    if any(signer.person == each.person or signer.key_sha256 == each.key_sha256 for each in before):
        raise Refused(Code.SIGNED_ALREADY, f"'{signer.subject}' has signed it before; one person counts once")
    manifest = bundle.manifest
    if manifest.not_after <= now:
        raise Refused(Code.EXPIRED, f"it was valid until {manifest.not_after:%Y-%m-%d %H:%M:%S} UTC")
    if signer.not_after < manifest.not_after:
        text = f"the certificate of '{signer.subject}' ends on {signer.not_after:%Y-%m-%d}, before the bundle does"
        raise Refused(Code.SIGNER_EXPIRED, f"{text}: fewer --valid-days, or a new certificate")
    fresh = (
        pkcs7.PKCS7SignatureBuilder()
        .set_data(bundle.manifest_json)
        .add_signer(key.certificate, key.private, key.digest())
        .sign(Encoding.DER, list(_OPTIONS))
    )
    old = cms.split(bundle.cms) if bundle.cms is not None else []
    content = write(manifest, cms.join([*old, *cms.split(fresh)]), bundle.crl, bundle.files)
    result = read_bytes(content)
    try:
        return result, _only_operators(check_signers(result, trust, managed_by=manifest.managed_by, now=now))
    except Refused as refused:
        if refused.code == Code.ALTERED:
            text = f"the key of {key.where} is not the one of the certificate of '{signer.subject}'"
            raise Refused(Code.NO_KEY, text) from refused
        raise


def unsafe_file_key(path: Path, certificate: x509.Certificate) -> SigningKey:
    """Return a key from a file, which whoever copies the file has too; a card cannot be copied.

    Raises:
        Refused: Others may read it (pin-exposed), or it is no key of that certificate (no-key).
        OSError: It cannot be read.

    """
    try:
        key = load_pem_private_key(read_secret(path), None)
    except (ValueError, TypeError) as wrong:
        raise Refused(Code.NO_KEY, f"{path} holds no private key without a password") from wrong
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise Refused(Code.NO_KEY, f"{path} holds neither an RSA key nor one of an elliptic curve")
    if key.public_key() != certificate.public_key():
        raise Refused(Code.NO_KEY, f"{path} is not the key of the certificate")
    return SigningKey(key, certificate, f"file {path}")


def _only_operators(signed: Signed) -> tuple[Signer, ...]:
    if signed.others:
        other = signed.others[0]
        text = f"'{other.subject}' by '{other.issuer}' has signed, whom the manager's authority does not know"
        raise Refused(Code.WRONG_OPERATOR, text)
    return signed.operators
