"""A certificate for every end of a topology, in files as an endpoint would have them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from netpolicy.pki.authority import CLIENT_AND_SERVER, Authority, Span, new_key
from netpolicy.topology.ends import End
from netpolicy.topology.identity import identity_uri, server_name
from netpolicy.topology.model import Node, Topology

LIFE = timedelta(hours=24)
"""Of a leaf."""

_NO_TIER = "(no tier)"
"""No id of a tier has parentheses."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The files of one end: a directory of mode 0700."""

    directory: Path

    @property
    def chain(self) -> Path:
        """The leaf, then its issuer."""
        return self.directory / "chain.pem"

    @property
    def key(self) -> Path:
        """The private key, mode 0600."""
        return self.directory / "key.pem"

    @property
    def trust(self) -> Path:
        """The root."""
        return self.directory / "trust.pem"

    @property
    def sealing_key(self) -> Path:
        """The private key that messages for it are sealed with (X25519, 32 bytes), mode 0600."""
        return self.directory / "sealing.key"

    @property
    def sealing_public(self) -> Path:
        """The public key of the same."""
        return self.directory / "sealing.pub"

    @property
    def crl(self) -> Path:
        """The current revocation lists of all authorities."""
        return self.directory / "crl.pem"


@dataclass(slots=True)
class Identities:
    """All ends of a topology, and the authorities that can make more of them."""

    topology: Topology
    directory: Path
    root: Authority
    issuers: dict[str, Authority]
    """By tier; ends outside all tiers have one of their own, under the empty string."""
    now: datetime
    _owners: list[Path] = field(default_factory=list)
    _lists: dict[x509.Name, bytes] = field(default_factory=dict)
    """The current revocation list of each authority (PEM), by its name."""

    def of(self, end: End) -> Identity:
        """Return the files of an end."""
        return Identity(self.directory / end.id)

    def authorities(self) -> bytes:
        """Return the certificates (PEM) of the root and of all issuers: what a bundle is told to trust."""
        return b"".join(each.certificate.public_bytes(Encoding.PEM) for each in (self.root, *self.issuers.values()))

    def fingerprints(self, ends: Iterable[End]) -> dict[str, tuple[str, ...]]:
        """Return the SHA-1 of each end's certificate in hexadecimal, by id: what engines can be told to pin."""
        return {end.id: (_leaf(self.of(end)).fingerprint(hashes.SHA1()).hex(),) for end in ends}  # noqa: S303 - Suricata compares these

    def forge(
        self,
        end: End,
        name: str,
        *,
        span: Span | None = None,
        foreign: bool = False,
        usage: tuple[x509.ObjectIdentifier, ...] = CLIENT_AND_SERVER,
    ) -> Identity:
        """Return another certificate with an end's own role URI.

        Args:
            end: Whom it is made out to.
            name: The directory to write, beside those of the ends.
            span: When it is valid; by default, now.
            foreign: Signed by an authority that nobody here trusts, although it is called as the right one.
            usage: What it is for (RFC 5280, 4.2.1.12).

        """
        issuer = self._issuer(end)
        if foreign:
            title = issuer.name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
            issuer = Authority.root(self.topology.id, self.now).subordinate(str(title), self.now)
        return self._write(end, self.directory / name, issuer, span or Span.of(self.now, LIFE), usage)

    def renew(self, end: End, *, now: datetime) -> None:
        """Give an end a new key and certificate in the place of the old ones."""
        self._fill(end, Identity(self.directory / end.id), self._issuer(end), Span.of(now, LIFE))

    def issue_all(self) -> None:
        """Make the first revocation lists, and the certificates of all ends."""
        for each in (self.root, *self.issuers.values()):
            self._lists[each.name] = each.crl(self.now).public_bytes(Encoding.PEM)
        ends: list[End] = [*self.topology.nodes.values(), *self.topology.firewalls.values()]
        for end in ends:
            self._write(end, self.directory / end.id, self._issuer(end), Span.of(self.now, LIFE))

    def revoke(self, *identities: Identity, now: datetime | None = None) -> None:
        """Revoke leaves, and give every end their issuers' new lists.

        Args:
            identities: Of ends, or forged and not foreign.
            now: The list's time, with its time zone; by default when the identities were issued.

        Raises:
            ValueError: No issuer here has signed one of them, or one had hundreds of lists at this time already.

        """
        by_name = {each.name: each for each in self.issuers.values()}
        revoked: dict[x509.Name, list[int]] = {}
        for identity in identities:
            leaf = _leaf(identity)
            issuer = by_name.get(leaf.issuer)
            if issuer is None or not _issued_by(leaf, issuer):
                raise ValueError(f"{identity.chain} is of an authority that cannot revoke here")
            revoked.setdefault(leaf.issuer, []).append(leaf.serial_number)
        for name, serials in revoked.items():
            by_name[name].revoked += serials
            self._lists[name] = by_name[name].crl(now or self.now).public_bytes(Encoding.PEM)
        for owner in self._owners:
            self._publish(owner)

    def _issuer(self, end: End) -> Authority:
        if isinstance(end, Node):
            return self.issuers[self.topology.segments[end.interface.segment].tier or ""]
        tier = self.topology.sites[end.site].tier if end.site else ""
        return self.issuers[tier]

    def _publish(self, owner: Path) -> None:
        _replace(Identity(owner).crl, b"".join(self._lists.values()), 0o644)

    def _write(
        self,
        end: End,
        directory: Path,
        issuer: Authority,
        span: Span,
        usage: tuple[x509.ObjectIdentifier, ...] = CLIENT_AND_SERVER,
    ) -> Identity:
        directory.mkdir(mode=0o700)
        identity = Identity(directory)
        self._fill(end, identity, issuer, span, usage)
        self._publish(directory)
        self._owners.append(directory)
        return identity

    def _fill(
        self,
        end: End,
        identity: Identity,
        issuer: Authority,
        span: Span,
        usage: tuple[x509.ObjectIdentifier, ...] = CLIENT_AND_SERVER,
    ) -> None:
        key = new_key()
        names = identity_uri(self.topology, end), server_name(self.topology, end)
        leaf = issuer.leaf(end.id, names, key.public_key(), span, usage)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _replace(identity.key, private, 0o600)
        sealing = X25519PrivateKey.generate()
        _replace(identity.sealing_key, sealing.private_bytes_raw(), 0o600)
        _replace(identity.sealing_public, sealing.public_key().public_bytes_raw(), 0o644)
        chain = leaf.public_bytes(Encoding.PEM) + issuer.certificate.public_bytes(Encoding.PEM)
        _replace(identity.chain, chain, 0o644)
        _replace(identity.trust, self.root.certificate.public_bytes(Encoding.PEM), 0o644)


def issue_identities(topology: Topology, directory: Path, *, now: datetime) -> Identities:
    """Make authorities and a certificate for each node and each firewall.

    Args:
        topology: Whose ends.
        directory: New; mode 0700, with a directory for each end by its id.
        now: With its time zone.

    Raises:
        OSError: The directory exists or cannot be written.

    """
    directory.mkdir(mode=0o700, parents=True)
    root = Authority.root(topology.id, now)
    tiers = [*topology.tiers, ""]
    issuers = {tier: root.subordinate(tier or _NO_TIER, now) for tier in tiers}
    identities = Identities(topology, directory, root, issuers, now)
    identities.issue_all()
    return identities


def _leaf(identity: Identity) -> x509.Certificate:
    return x509.load_pem_x509_certificates(identity.chain.read_bytes())[0]


def _issued_by(leaf: x509.Certificate, issuer: Authority) -> bool:
    """Tell whether an authority has signed a certificate, not only whether it is called so."""
    try:
        leaf.verify_directly_issued_by(issuer.certificate)
    except InvalidSignature:
        return False
    return True


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Write a file in one step; its content is never readable by more than `mode` allows."""
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    fresh.replace(path)
