"""Bundles, operators and cards for tests."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from appliance_image.bundle import Bundle, Held, Manifest, Trust, Verified, cms, read_bytes, verify
from appliance_image.bundle.archive import write
from appliance_image.signing.key import SigningKey
from appliance_image.signing.prepare import Order, prepare
from appliance_image.signing.sign import add_signature
from netpolicy.pki.authority import Authority, Span, new_key

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
DAY = timedelta(days=1)
NETWORK, MANAGER = "jukinet", "designated-agency"
ONE, TWO = "tokyo-fw", "centre-resident-fw"
"""Firewalls that need one operator and two."""
MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN, SO_PIN = "271828", "314159"


def authority(name: str = "operators", now: datetime = NOW) -> Authority:
    """Return an authority of operators."""
    return Authority.root(NETWORK, now - 30 * DAY, life=2000 * DAY, title=name)


@dataclass
class Site:
    """A trust directory, and the authority of its one manager."""

    operators: Authority
    trust: Trust
    build: Path
    ends: Authority = field(default_factory=lambda: authority("ends"))
    """Who certifies nodes and firewalls."""

    def person(self, name: str, *, number: str | None = None, until: timedelta = 365 * DAY) -> SigningKey:
        """Return an operator of the manager, with a key in memory."""
        return person(self.operators, name, number=number, until=until)

    def order(self, firewall: str, serial: int = 7, *, crl: bytes | None = None) -> Bundle:
        """Return a bundle that nobody has signed."""
        fresh = self.crl() if crl is None else crl
        return prepare(self.build, Order(firewall, serial, NOW, 100 * DAY, fresh, pem(self.ends.certificate)))

    def crl(self, now: datetime = NOW, *, life: timedelta = 7 * DAY) -> bytes:
        """Return a new revocation list."""
        self.operators._crl_time = None
        return self.operators.crl(now, life=life).public_bytes(Encoding.PEM)

    def signed(self, firewall: str, by: Iterable[SigningKey], serial: int = 7, *, crl: bytes | None = None) -> Bundle:
        """Return a bundle that these have signed, one after the other."""
        bundle = self.order(firewall, serial, crl=crl)
        for key in by:
            bundle, _ = add_signature(bundle, key, self.trust, NOW)
        return bundle

    def verify(
        self,
        bundle: Bundle,
        *,
        firewall: str | None = None,
        signatures: int = 1,
        after_serial: int = 0,
        now: datetime = NOW,
        managed_by: str = MANAGER,
        crl: bytes | None = None,
        known: Iterable[str] = (),
        network: str | None = NETWORK,
    ) -> Verified:
        """Verify a bundle as the firewall that it is for."""
        return verify(
            bundle,
            self.trust,
            firewall=firewall or bundle.manifest.firewall,
            managed_by=managed_by,
            signatures=signatures,
            after_serial=after_serial,
            now=now,
            crl=crl,
            known=frozenset(known),
            network=network,
        )


def person(
    issuer: Authority,
    name: str,
    *,
    number: str | None = None,
    until: timedelta = 365 * DAY,
    purpose: str | None = None,
) -> SigningKey:
    """Return an operator of an authority, with a key in memory."""
    key = new_key()
    arguments = () if purpose is None else (purpose,)
    span = Span(NOW - 10 * DAY, NOW + until)
    certificate = issuer.operator(
        name, f"{MANAGER}-{name}" if number is None else number, key.public_key(), span, *arguments
    )
    return SigningKey(key, certificate, "memory")


def rewritten(bundle: Bundle, manifest: Manifest, *, cms: bytes | None = None) -> Bundle:
    """Return a bundle with another manifest and, unless given, the signatures that it had."""
    return read_bytes(write(manifest, cms if cms is not None else bundle.cms, bundle.crl, bundle.files))


def with_file(bundle: Bundle, path: str, content: bytes) -> bytes:
    """Return the bytes of a bundle with one file changed in place; the manifest stays."""
    return write(bundle.manifest, bundle.cms, bundle.crl, {**bundle.files, path: content})


def consistent(bundle: Bundle, path: str, content: bytes) -> Bundle:
    """Return a bundle with one file changed, and the manifest with it; the signatures stay."""
    files = {**bundle.files, path: content}
    manifest = replace(bundle.manifest, files={**bundle.manifest.files, path: Held.of(content)})
    return read_bytes(write(manifest, bundle.cms, bundle.crl, files))


def make_token(directory: Path, label: str) -> None:
    """Make an empty SoftHSM2 token; $SOFTHSM2_CONF is the test session's."""
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", SO_PIN, "--pin", PIN],
        check=True,
        capture_output=True,
        env={**os.environ, "SOFTHSM2_CONF": str(directory / "softhsm2.conf")},
    )


def import_key(directory: Path, label: str, key: Path) -> None:
    """Put a private key (PKCS #8, PEM) into a token of :func:`make_token`."""
    subprocess.run(
        ["softhsm2-util", "--import", key, "--token", label, "--label", label, "--id", "01", "--pin", PIN],
        check=True,
        capture_output=True,
        env={**os.environ, "SOFTHSM2_CONF": str(directory / "softhsm2.conf")},
    )


def set_token_flags(directory: Path, label: str, flag: int) -> None:
    """Set a flag (CKF_…) of a token, in the file in which SoftHSM2 keeps it: SoftHSM2 never locks a PIN itself.

    A value stands there as type, kind and value, 8 bytes each (OSAttributes.h: CKA_OS_TOKENFLAGS).
    """
    pattern = re.compile((0x8000534B).to_bytes(8, "big") + (2).to_bytes(8, "big") + b"(.{8})", re.DOTALL)
    for path in directory.glob("tokens/*/token.object"):
        content = path.read_bytes()
        if label.encode() not in content:
            continue
        found = pattern.search(content)
        assert found is not None
        value = int.from_bytes(found.group(1), "big") | flag
        # SoftHSM2 reads the file again when the generation number at its head has changed.
        generation = int.from_bytes(content[:8], "big") + 1
        fresh = content[: found.start(1)] + value.to_bytes(8, "big") + content[found.end(1) :]
        path.write_bytes(generation.to_bytes(8, "big") + fresh[8:])
        return
    raise AssertionError(f"no token {label}")


def pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate as text."""
    return certificate.public_bytes(Encoding.PEM)


def raw_signature(bundle: Bundle, key: SigningKey) -> cms.Signature:
    """Return a signature that nobody has looked into."""
    made = (
        pkcs7.PKCS7SignatureBuilder()
        .set_data(bundle.manifest_json)
        .add_signer(key.certificate, key.private, key.digest())
        .sign(Encoding.DER, [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary])
    )
    return cms.split(made)[0]


def with_signatures(bundle: Bundle, signatures: Iterable[cms.Signature]) -> Bundle:
    """Return a bundle with these signatures instead of those that it has."""
    return rewritten(bundle, bundle.manifest, cms=cms.join(signatures))
