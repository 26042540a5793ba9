"""An authority's files: what is issued, to whom, until when, and what is revoked.

DIRECTORY/                 mode 0700
network                  whose it is
root/key.pem             take it off this machine when the issuers are made: only `init` and root lists need it
root/certificate.pem  root/crl.pem
issuers/<tier>/key.pem  certificate.pem  crl.pem  crl-number
issued.csv               every certificate ever issued: serial, end, URI, end of validity, when it was revoked
ends/<id>/chain.pem  key.pem  trust.pem  crl.pem
certificates.csv         those that are valid, as `netpolicy compile --certificates` reads them
authorities.pem          root and issuers, as `netpolicy bundle sign --authorities` reads them
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from netpolicy.inputs import read_regular
from netpolicy.pki.authority import Authority, Span, new_key
from netpolicy.pki.due import CERTIFICATE_WARNING, CRL_WARNING
from netpolicy.pki.files import write
from netpolicy.topology.ends import End
from netpolicy.topology.identity import identity_uri, server_name
from netpolicy.topology.model import Node, Topology

LEAF_LIFE = timedelta(days=90)
ISSUER_LIFE = timedelta(days=365 * 3)
ROOT_LIFE = timedelta(days=365 * 10)
CRL_LIFE = timedelta(days=7)
NO_TIER = "no-tier"
"""The issuer of ends outside all tiers; a tier of this name has the same one."""

_ISSUED = "issued.csv"
_MOST_BYTES = 64 << 20
"""Of what was issued."""
_CERTIFICATES = "certificates.csv"
_AUTHORITIES = "authorities.pem"


class PkiError(Exception):
    """The store cannot do what it was asked; says why."""


@dataclass(frozen=True, slots=True)
class Issued:
    """One certificate."""

    serial: int
    end: str
    issuer: str
    uri: str
    not_after: datetime
    sha1: str
    sha256: str
    revoked: datetime | None = None


@dataclass(slots=True)
class Store:
    """The files below one directory."""

    directory: Path
    topology: Topology
    issued: list[Issued] = field(default_factory=list)

    @classmethod
    def init(cls, directory: Path, topology: Topology, now: datetime) -> Store:
        """Make a root and an issuer for each tier.

        Raises:
            PkiError: There is something already.

        """
        if directory.exists() and any(directory.iterdir()):
            raise PkiError(f"{directory} is not empty")
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        write(directory / "network", topology.id.encode() + b"\n", 0o644)
        root = Authority.root(topology.id, now, life=ROOT_LIFE)
        _write_authority(directory / "root", root)
        store = cls(directory, topology)
        for tier in (*topology.tiers, *(() if NO_TIER in topology.tiers else (NO_TIER,))):
            _write_authority(directory / "issuers" / tier, root.subordinate(tier, now, life=ISSUER_LIFE))
        places = (directory / "root", *sorted((directory / "issuers").iterdir()))
        known = b"".join((place / "certificate.pem").read_bytes() for place in places)
        write(directory / _AUTHORITIES, known, 0o644)
        store.publish(now, root=root)
        store.save()
        return store

    @classmethod
    def open(cls, directory: Path, topology: Topology) -> Store:
        """Read a store.

        Raises:
            PkiError: There is none, it is another network's, or it is damaged.

        """
        try:
            network = (directory / "network").read_text(encoding="utf-8").strip()
            if network != topology.id:
                raise PkiError(f"{directory} is of network '{network}', and the topology is of '{topology.id}'")
            content = read_regular(directory / _ISSUED, _MOST_BYTES).decode("utf-8")
            issued = [_read(row) for row in csv.DictReader(io.StringIO(content, newline=""))]
        except FileNotFoundError as missing:
            raise PkiError(
                f"{directory} is no authority: {missing.filename} is missing; netpolicy pki init"
            ) from missing
        except (OSError, KeyError, ValueError, TypeError, csv.Error) as damaged:
            raise PkiError(f"{directory / _ISSUED} is damaged: {damaged}") from damaged
        return cls(directory, topology, issued)

    def issue(self, end: End, now: datetime) -> Issued:
        """Give an end a new key and certificate; one that it has stays valid until its end, for a change-over.

        Raises:
            PkiError: Its issuer's key is not here, or the issuer ends before the certificate would.

        """
        name = self._issuer_of(end)
        issuer = self._authority(self.directory / "issuers" / name)
        if now + LEAF_LIFE > issuer.certificate.not_valid_after_utc:
            raise PkiError(f"issuer '{name}' ends on {issuer.certificate.not_valid_after_utc:%Y-%m-%d}: renew it first")
        key = new_key()
        names = identity_uri(self.topology, end), server_name(self.topology, end)
        leaf = issuer.leaf(end.id, names, key.public_key(), Span.of(now, LEAF_LIFE))
        place = self.directory / "ends" / end.id
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(place / "key.pem", _private(key), 0o600)
        chain = leaf.public_bytes(Encoding.PEM) + issuer.certificate.public_bytes(Encoding.PEM)
        write(place / "chain.pem", chain, 0o644)
        write(place / "trust.pem", (self.directory / "root/certificate.pem").read_bytes(), 0o644)
        write(place / "crl.pem", self.lists(), 0o644)
        found = Issued(
            serial=leaf.serial_number,
            end=end.id,
            issuer=name,
            uri=names[0],
            not_after=leaf.not_valid_after_utc,
            sha1=leaf.fingerprint(hashes.SHA1()).hex(),  # noqa: S303 - Suricata compares these
            sha256=leaf.fingerprint(hashes.SHA256()).hex(),
        )
        self.issued.append(found)
        return found

    def revoke(self, end: str, now: datetime, serial: int | None = None) -> list[Issued]:
        """Revoke an end's valid certificates, or the one with a serial number, and publish the issuers' new lists.

        Raises:
            PkiError: It has none of that kind.

        """
        wanted = [each for each in self.valid(now) if each.end == end and serial in {None, each.serial}]
        if not wanted:
            raise PkiError(f"'{end}' has no valid certificate" + (f" with serial number {serial:x}" if serial else ""))
        self.issued = [replace(each, revoked=now) if each in wanted else each for each in self.issued]
        self.publish(now, {each.issuer for each in wanted})
        return wanted

    def valid(self, now: datetime) -> Iterator[Issued]:
        """Yield what is neither revoked nor over."""
        return (each for each in self.issued if each.revoked is None and each.not_after > now)

    def due(self, now: datetime) -> list[str]:
        """Return the ends whose last certificate is due, or has ended."""
        last: dict[str, datetime] = {}
        for each in self.issued:
            if each.revoked is None:
                last[each.end] = max(last.get(each.end, each.not_after), each.not_after)
        return [end for end, until in last.items() if until <= now + CERTIFICATE_WARNING]

    def without(self, now: datetime) -> list[str]:
        """Return the ends that have no valid certificate."""
        having = {each.end for each in self.valid(now)}
        return [end for end in (*self.topology.nodes, *self.topology.firewalls) if end not in having]

    def status(self, now: datetime) -> Iterator[str]:
        """Yield what should be done, one line each."""
        for place in (self.directory / "root", *sorted((self.directory / "issuers").iterdir())):
            certificate = x509.load_pem_x509_certificate((place / "certificate.pem").read_bytes())
            until = certificate.not_valid_after_utc
            if until <= now + LEAF_LIFE + CERTIFICATE_WARNING:
                yield f"{place.name}: the authority itself ends on {until:%Y-%m-%d}"
            ends = x509.load_pem_x509_crl((place / "crl.pem").read_bytes()).next_update_utc
            if ends is None or ends <= now + CRL_WARNING:
                yield f"{place.name}: its revocation list ends on {ends:%Y-%m-%d %H:%M} UTC, and then nobody passes"
        for end in self.without(now):
            yield f"{end}: no valid certificate"
        last = {each.end: each.not_after for each in self.issued}
        for end in self.due(now):
            yield f"{end}: its certificate ends on {last[end]:%Y-%m-%d}"

    def publish(self, now: datetime, issuers: set[str] | None = None, root: Authority | None = None) -> None:
        """Write new revocation lists, of all issuers by default, and hand all lists to every end.

        The root's list is written too while its key is here.
        """
        for place in sorted((self.directory / "issuers").iterdir()):
            if issuers is None or place.name in issuers:
                revoked = [each for each in self.issued if each.issuer == place.name and each.revoked is not None]
                _publish(place, self._authority(place), revoked, now)
        place = self.directory / "root"
        if issuers is None and (root is not None or (place / "key.pem").exists()):
            _publish(place, root or self._authority(place), [], now, life=ISSUER_LIFE)
        lists = self.lists()
        for end in (self.directory / "ends").glob("*"):
            write(end / "crl.pem", lists, 0o644)

    def lists(self) -> bytes:
        """Return the current revocation lists of all authorities (PEM)."""
        places = [self.directory / "root", *sorted((self.directory / "issuers").iterdir())]
        return b"".join((place / "crl.pem").read_bytes() for place in places)

    def save(self, now: datetime | None = None) -> None:
        """Write what was issued, and the certificates that may be pinned."""
        write(self.directory / _ISSUED, _table(self.issued, [each.name for each in fields(Issued)]), 0o600)
        columns = ["end", "uri", "not_after", "sha1", "sha256"]
        write(self.directory / _CERTIFICATES, _table(list(self.valid(now or datetime.now(UTC))), columns), 0o644)

    def _issuer_of(self, end: End) -> str:
        if isinstance(end, Node):
            return self.topology.segments[end.interface.segment].tier or NO_TIER
        return self.topology.sites[end.site].tier if end.site else NO_TIER

    def _authority(self, place: Path) -> Authority:
        try:
            key = load_pem_private_key((place / "key.pem").read_bytes(), None)
        except FileNotFoundError as missing:
            raise PkiError(f"the key of '{place.name}' is not here ({place / 'key.pem'})") from missing
        certificate = x509.load_pem_x509_certificate((place / "certificate.pem").read_bytes())
        if not isinstance(key, EllipticCurvePrivateKey):
            raise PkiError(f"{place / 'key.pem'} is no key of an elliptic curve")
        return Authority(self.topology.id, certificate.subject, key, certificate)


def _publish(
    place: Path, authority: Authority, revoked: list[Issued], now: datetime, *, life: timedelta = CRL_LIFE
) -> None:
    count = place / "crl-number"
    number = int(count.read_text(encoding="ascii")) if count.exists() else 0
    authority.resume(number, [(each.serial, each.revoked or now) for each in revoked])
    write(place / "crl.pem", authority.crl(now, life=life).public_bytes(Encoding.PEM), 0o644)
    write(count, f"{number + 1}\n".encode(), 0o600)


def _write_authority(place: Path, authority: Authority) -> None:
    place.mkdir(mode=0o700, parents=True)
    write(place / "key.pem", _private(authority.key), 0o600)
    write(place / "certificate.pem", authority.certificate.public_bytes(Encoding.PEM), 0o644)


def _private(key: EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _table(rows: list[Issued], columns: list[str]) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow("id" if column == "end" and "serial" not in columns else column for column in columns)
    names = [each.name for each in fields(Issued)]
    for row in rows:
        values = dict(zip(names, astuple(row), strict=True))
        writer.writerow(_cell(column, values[column]) for column in columns)
    return stream.getvalue().encode()


def _cell(column: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{value:x}" if column == "serial" and isinstance(value, int) else str(value)


def _read(row: dict[str, str]) -> Issued:
    return Issued(
        serial=int(row["serial"], 16),
        end=row["end"],
        issuer=row["issuer"],
        uri=row["uri"],
        not_after=datetime.fromisoformat(row["not_after"]),
        sha1=row["sha1"],
        sha256=row["sha256"],
        revoked=datetime.fromisoformat(row["revoked"]) if row["revoked"] else None,
    )
