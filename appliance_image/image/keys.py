"""Secure Boot keys: the operator's, or a test key that says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from appliance_image.image.errors import ImageError
from appliance_image.image.workshop import Workshop

if TYPE_CHECKING:
    from appliance_image.signing.card import Card

TEST_SUBJECT = "/O=TEST KEY, NOT FOR PRODUCTION/CN=netpolicy TEST Secure Boot"
_YEARS = 3650


@dataclass(frozen=True, slots=True)
class SigningKey:
    """With what kernel image and boot loader are signed."""

    key: Path | Card
    """A file (PEM), or a card."""
    certificate: Path
    """PEM."""
    subject: str
    label: str | None = None
    """Of the key, if the card holds several."""

    @property
    def test(self) -> bool:
        """Whether it is a test key."""
        return "TEST" in self.subject.upper()


def read_key(
    key: Path | Card, certificate: Path, shop: Workshop, *, test: bool, label: str | None = None
) -> SigningKey:
    """Check a key of the operator's, as far as its certificate and its file tell.

    Raises:
        ImageError: It is a test key for a production image, no RSA key (firmware often knows no other), or no key.

    """
    if isinstance(key, Path) and not key.is_file():
        raise ImageError(f"{key}: no such key file")
    content = certificate.read_bytes()
    subject = shop.run("openssl", "x509", "-noout", "-subject", "-nameopt", "RFC2253", stdin=content).decode().strip()
    if b"rsaEncryption" not in shop.run("openssl", "x509", "-noout", "-text", stdin=content):
        raise ImageError(f"{certificate}: not an RSA key, which is the only kind that every firmware knows")
    found = SigningKey(key, certificate, subject, label)
    if found.test and not test:
        raise ImageError(f"{certificate}: a test key ({subject}) signs test images only: --test")
    if test and not found.test:
        raise ImageError(
            f"{certificate}: a test image, which has a console, is only signed by a key whose subject says TEST"
        )
    return found


def test_key(directory: Path, shop: Workshop) -> SigningKey:
    """Return the test key in `directory` (0700); it is made where there is none."""
    key, certificate = directory / "secure-boot.key", directory / "secure-boot.pem"
    if not key.is_file() or not certificate.is_file():
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory.chmod(0o700)
        made = shop.work / "made-key"
        made.mkdir(mode=0o700)
        shop.run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256", "-days", str(_YEARS),
                 "-subj", TEST_SUBJECT, "-addext", "basicConstraints=critical,CA:FALSE",
                 "-addext", "extendedKeyUsage=codeSigning", "-addext", "keyUsage=critical,digitalSignature",
                 "-keyout", "made-key/key", "-out", "made-key/pem")  # fmt: skip
        for source, target in ((made / "key", key), (made / "pem", certificate)):
            target.touch(mode=0o600)
            target.write_bytes(source.read_bytes())
            target.chmod(0o600)
    return read_key(key, certificate, shop, test=True)
