"""Certification authorities (RFC 5280) and what they sign."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from netpolicy.pki.purpose import SIGNS_BUNDLES

_AUTHORITY_LIFE = timedelta(days=7)
_CRL_LIFE = timedelta(days=1)
_SKEW = timedelta(minutes=5)
"""Certificates are valid from so long before they were made."""
_CRL_STEP = timedelta(seconds=1)
"""The resolution of a list's times (RFC 5280, 5.1.2.4)."""
PublicKey = EllipticCurvePublicKey | RSAPublicKey
CLIENT_AND_SERVER = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)


def new_key() -> EllipticCurvePrivateKey:
    """Return a new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(slots=True)
class Authority:
    """A certification authority with its key, in memory only."""

    network: str
    name: x509.Name
    key: EllipticCurvePrivateKey
    certificate: x509.Certificate
    revoked: list[int] = field(default_factory=list)
    """Serial numbers."""
    _dates: dict[int, datetime] = field(default_factory=dict)
    """When each was revoked, as far as that is known."""
    _crl_number: int = 0
    _crl_time: datetime | None = None

    @classmethod
    def root(
        cls, network: str, now: datetime, *, life: timedelta = _AUTHORITY_LIFE, title: str | None = None
    ) -> Authority:
        """Return a self-signed authority, which is called like its network unless it has a title of its own."""
        key, name = new_key(), _name(network, "root", title or network)
        builder = _authority_builder(
            name, name, key.public_key(), key.public_key(), path_length=1, span=Span.of(now, life)
        )
        return cls(network, name, key, builder.sign(key, hashes.SHA256()))

    def subordinate(self, title: str, now: datetime, *, life: timedelta = _AUTHORITY_LIFE) -> Authority:
        """Return an authority that this one has certified and that may certify ends only."""
        key, name = new_key(), _name(self.network, "issuer", title)
        builder = _authority_builder(
            self.name, name, key.public_key(), self.key.public_key(), path_length=0, span=Span.of(now, life)
        )
        return Authority(self.network, name, key, builder.sign(self.key, hashes.SHA256()))

    def leaf(
        self,
        common_name: str,
        names: tuple[str, str],
        key: EllipticCurvePublicKey,
        span: Span,
        usage: tuple[x509.ObjectIdentifier, ...] = CLIENT_AND_SERVER,
    ) -> x509.Certificate:
        """Return a certificate for an end with a URI and a DNS name, by default one that is client and server."""
        uri, name = names
        return (
            _builder(self.name, _name(self.network, "end", common_name), key, self.key.public_key(), span)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), x509.DNSName(name)]), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )

    def operator(
        self, name: str, person: str, key: PublicKey, span: Span, purpose: str = SIGNS_BUNDLES
    ) -> x509.Certificate:
        """Return a certificate for a person who signs bundles.

        Args:
            name: What they are called.
            person: What tells them apart from all others of this authority; it stays when keys and names change.
            key: Theirs.
            span: When it is valid.
            purpose: The extended key usage.

        """
        return (
            _builder(self.name, _name(self.network, "operator", name, person), key, self.key.public_key(), span)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([x509.ObjectIdentifier(purpose)]), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def resume(self, number: int, revoked: list[tuple[int, datetime]]) -> None:
        """Go on after list `number`: `revoked` are serial numbers, and since when."""
        self._crl_number, self.revoked, self._dates = number, [serial for serial, _ in revoked], dict(revoked)

    def crl(self, now: datetime, *, life: timedelta = _CRL_LIFE) -> x509.CertificateRevocationList:
        """Return a new list of what is revoked, with a higher number and a later time than the last.

        Verifiers ignore a list that is not later than the one they have, and refuse everyone by one from the future.

        Raises:
            ValueError: There were so many lists up to `now` that the next one would be from the future.

        """
        time = now - _SKEW if self._crl_time is None else max(now - _SKEW, self._crl_time + _CRL_STEP)
        if time > now:
            raise ValueError(f"a revocation list of {now} cannot be later than the one before it")
        self._crl_time = time
        self._crl_number += 1
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(time)
            .next_update(now + life)
            .add_extension(x509.CRLNumber(self._crl_number), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        for serial in self.revoked:
            since = self._dates.get(serial, now - _SKEW)
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, hashes.SHA256())


@dataclass(frozen=True, slots=True)
class Span:
    """When a certificate is valid."""

    begin: datetime
    end: datetime

    @classmethod
    def of(cls, now: datetime, life: timedelta) -> Span:
        """Return a span from shortly before `now`."""
        return cls(now - _SKEW, now + life)


def _name(network: str, kind: str, title: str, person: str | None = None) -> x509.Name:
    """Return a name; the kind keeps a tier or an end that is called like the network apart from the root."""
    parts = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, network),
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, kind),
        x509.NameAttribute(NameOID.COMMON_NAME, title),
    ]
    return x509.Name([*parts, *([] if person is None else [x509.NameAttribute(NameOID.SERIAL_NUMBER, person)])])


def _builder(
    issuer: x509.Name, subject: x509.Name, key: PublicKey, signer: EllipticCurvePublicKey, span: Span
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(span.begin)
        .not_valid_after(span.end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )


def _authority_builder(
    issuer: x509.Name,
    subject: x509.Name,
    key: EllipticCurvePublicKey,
    signer: EllipticCurvePublicKey,
    *,
    path_length: int,
    span: Span,
) -> x509.CertificateBuilder:
    return (
        _builder(issuer, subject, key, signer, span)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(key_usage(authority=True), critical=True)
    )


def key_usage(*, authority: bool) -> x509.KeyUsage:
    """Return what a key may be used for (RFC 5280, 4.2.1.3): to certify, or to sign what an end says."""
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
