"""A bundle, and what is known of it once it is verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from appliance_image.bundle.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Bundle:
    """The parts of a bundle whose form is right; nothing is known yet of who made it."""

    content: bytes = field(repr=False)
    """The whole file."""
    sha256: str
    """Of the whole file, in hexadecimal."""
    manifest_json: bytes = field(repr=False)
    """The very bytes that are signed."""
    manifest: Manifest
    cms: bytes | None = field(repr=False)
    """The signatures (DER), None if there are none."""
    crl: bytes = field(repr=False)
    """The revocation lists (PEM)."""
    files: Mapping[str, bytes] = field(repr=False)
    """By path below ``files/``."""


@dataclass(frozen=True, slots=True)
class Signer:
    """Who made one signature."""

    subject: str
    """Their certificate's subject, to show."""
    issuer: str
    serial: int
    """Of the certificate."""
    person: str | None
    """The serial number in the subject, folded, which tells persons apart; None if there is not exactly one."""
    key_sha256: str
    """Of what public keys have in common whose private keys are one."""
    certificate: bytes = field(repr=False)
    """DER."""
    not_after: datetime
    """The end of the certificate."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A bundle that may be run."""

    bundle: Bundle
    operators: tuple[Signer, ...]
    """Those who count, each a person and a key of their own."""
    others: tuple[Signer, ...]
    """Signers who were not looked into, as their certificates are of no authority that is known; to show only."""
    crl: bytes
    """The newest revocation lists (PEM) of the bundle and of those that were stored: store them."""

    @property
    def manifest(self) -> Manifest:
        """What was signed."""
        return self.bundle.manifest
