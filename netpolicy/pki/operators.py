"""An authority for the people who sign bundles: one for each manager, in files.

DIRECTORY/                   mode 0700
network                      whose it is
<manager>/key.pem  certificate.pem  crl.pem  crl-number
issued.csv                   every certificate ever issued
trust/<manager>.pem          what images and ``netpolicy bundle`` take as --trust
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field, fields, replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from netpolicy.inputs import read_regular
from netpolicy.pki.authority import Authority, PublicKey, Span
from netpolicy.pki.files import write
from netpolicy.pki.person import person_of
from netpolicy.pki.store import PkiError
from netpolicy.topology.model import Topology

OPERATOR_LIFE = timedelta(days=365)
AUTHORITY_LIFE = timedelta(days=365 * 3)
CRL_LIFE = timedelta(days=30)
WARNING = timedelta(days=30)
"""How long before its end a certificate is due."""
CRL_WARNING = timedelta(days=7)
"""The same of a revocation list."""

_ISSUED, _TRUST, _NETWORK = "issued.csv", "trust", "network"
_MOST_BYTES = 64 << 20
"""Of what was issued."""


@dataclass(frozen=True, slots=True)
class Operator:
    """One certificate of a person."""

    serial: int
    manager: str
    person: str
    name: str
    not_after: datetime
    revoked: datetime | None = None


@dataclass(slots=True)
class Operators:
    """The files below one directory."""

    directory: Path
    issued: list[Operator] = field(default_factory=list)

    @classmethod
    def init(cls, directory: Path, topology: Topology, now: datetime) -> Operators:
        """Make an authority for every manager of a topology, and its first revocation list.

        Raises:
            PkiError: There is something already, or the directory is inside a repository, where keys do not belong.

        """
        if directory.exists() and any(directory.iterdir()):
            raise PkiError(f"{directory} is not empty")
        within = next((each for each in directory.resolve().parents if (each / ".git").exists()), None)
        if within is not None:
            raise PkiError(f"{directory} is inside the repository {within}: private keys do not belong there")
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        write(directory / _NETWORK, topology.id.encode() + b"\n", 0o644)
        (directory / _TRUST).mkdir()
        store = cls(directory)
        for manager in topology.managers:
            authority = Authority.root(topology.id, now, life=AUTHORITY_LIFE, title=f"operators of {manager}")
            (directory / manager).mkdir(mode=0o700)
            private = authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            write(directory / manager / "key.pem", private, 0o600)
            certificate = authority.certificate.public_bytes(Encoding.PEM)
            write(directory / manager / "certificate.pem", certificate, 0o644)
            write(directory / _TRUST / f"{manager}.pem", certificate, 0o644)
            store.publish(manager, now)
        store.save()
        return store

    @classmethod
    def open(cls, directory: Path) -> Operators:
        """Read a store.

        Raises:
            PkiError: There is none, or it is damaged.

        """
        try:
            content = read_regular(directory / _ISSUED, _MOST_BYTES).decode("utf-8")
            return cls(directory, [_read(row) for row in csv.DictReader(io.StringIO(content, newline=""))])
        except FileNotFoundError as missing:
            text = f"{directory} is no authority of operators: {missing.filename} is missing; netpolicy operators init"
            raise PkiError(text) from missing
        except (OSError, KeyError, ValueError, TypeError, csv.Error) as damaged:
            raise PkiError(f"{directory / _ISSUED} is damaged: {damaged}") from damaged

    @property
    def trust(self) -> Path:
        """Where the authorities' certificates are, by manager."""
        return self.directory / _TRUST

    def managers(self) -> list[str]:
        """Return whose operators there are authorities for."""
        return sorted(path.stem for path in self.trust.glob("*.pem"))

    def issue(self, manager: str, person: str, name: str, key: PublicKey, now: datetime) -> x509.Certificate:
        """Certify an operator's key; certificates that they have stay valid until their end.

        Raises:
            PkiError: There is no such manager, or the authority ends before the certificate would.

        """
        authority = self._authority(manager)
        if now + OPERATOR_LIFE > authority.certificate.not_valid_after_utc:
            ends = authority.certificate.not_valid_after_utc
            raise PkiError(f"the authority of '{manager}' ends on {ends:%Y-%m-%d}: make a new one first")
        if not person or not name:
            raise PkiError("an operator needs a name, and a number that tells them from all others")
        if person_of(person) is None:
            raise PkiError(
                f"'{person}' is no number of an operator: letters, digits and '()+,-./:=? of ASCII, 64 at most"
            )
        alike = next(
            (each.person for each in self.issued if each.manager == manager and _alike(each.person, person)), None
        )
        if alike is not None:
            raise PkiError(f"'{person}' and '{alike}' are one number to who reads certificates: write it as '{alike}'")
        made = authority.operator(name, person, key, Span.of(now, OPERATOR_LIFE))
        self.issued.append(Operator(made.serial_number, manager, person, name, made.not_valid_after_utc))
        self.save()
        return made

    def revoke(self, manager: str, person: str, now: datetime) -> list[Operator]:
        """Revoke all valid certificates of a person, and publish the new list.

        Raises:
            PkiError: They have none.

        """
        wanted = [each for each in self.valid(now) if (each.manager, each.person) == (manager, person)]
        if not wanted:
            raise PkiError(f"operator '{person}' of '{manager}' has no valid certificate")
        self.issued = [replace(each, revoked=now) if each in wanted else each for each in self.issued]
        # Recorded first: a list that is lost can be published again, a revocation that is lost would be forgotten.
        self.save()
        self.publish(manager, now)
        return wanted

    def publish(self, manager: str, now: datetime) -> Path:
        """Write a manager's new revocation list, and return where.

        Raises:
            PkiError: There is no such manager.

        """
        authority = self._authority(manager)
        place = self.directory / manager
        count = place / "crl-number"
        number = int(count.read_text(encoding="ascii")) if count.exists() else 0
        gone = [(each.serial, each.revoked) for each in self.issued if each.manager == manager and each.revoked]
        authority.resume(number, gone)
        # The number is taken before the list exists: two lists never have the same one.
        write(count, f"{number + 1}\n".encode(), 0o600)
        write(place / "crl.pem", authority.crl(now, life=CRL_LIFE).public_bytes(Encoding.PEM), 0o644)
        return place / "crl.pem"

    def valid(self, now: datetime) -> Iterator[Operator]:
        """Yield what is neither revoked nor over."""
        return (each for each in self.issued if each.revoked is None and each.not_after > now)

    def status(self, now: datetime) -> Iterator[str]:
        """Yield what should be done, one line each."""
        for manager in self.managers():
            until = self._authority(manager).certificate.not_valid_after_utc
            if until <= now + OPERATOR_LIFE + WARNING:
                yield f"{manager}: its authority ends on {until:%Y-%m-%d}"
            ends = x509.load_pem_x509_crl((self.directory / manager / "crl.pem").read_bytes()).next_update_utc
            if ends is None or ends <= now + CRL_WARNING:
                yield f"{manager}: its revocation list ends on {ends:%Y-%m-%d %H:%M} UTC; then nothing can be signed"
        for each in self.valid(now):
            if each.not_after <= now + WARNING:
                until = each.not_after
                yield f"{each.manager}: the certificate of {each.name} ({each.person}) ends on {until:%Y-%m-%d}"

    def save(self) -> None:
        """Write what was issued."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(each.name for each in fields(Operator))
        for row in self.issued:
            writer.writerow(each.isoformat() if isinstance(each, datetime) else each for each in astuple(row))
        write(self.directory / _ISSUED, stream.getvalue().encode(), 0o600)

    def _authority(self, manager: str) -> Authority:
        place = self.directory / manager
        if manager not in self.managers():
            raise PkiError(f"there is no manager '{manager}'; there are: {', '.join(self.managers())}")
        try:
            key = load_pem_private_key((place / "key.pem").read_bytes(), None)
            certificate = x509.load_pem_x509_certificate((place / "certificate.pem").read_bytes())
            network = (self.directory / _NETWORK).read_text(encoding="utf-8").strip()
        except (FileNotFoundError, ValueError) as wrong:
            raise PkiError(f"the authority of '{manager}' cannot be read: {wrong}") from wrong
        if not isinstance(key, EllipticCurvePrivateKey):
            raise PkiError(f"{place / 'key.pem'} is no key of an elliptic curve")
        return Authority(network, certificate.subject, key, certificate)


def _alike(known: str, person: str) -> bool:
    """Tell whether two numbers that are not written alike name one person."""
    return known != person and person_of(known) == person_of(person)


def _read(row: dict[str, str]) -> Operator:
    return Operator(
        serial=int(row["serial"]),
        manager=row["manager"],
        person=row["person"],
        name=row["name"],
        not_after=datetime.fromisoformat(row["not_after"]),
        revoked=datetime.fromisoformat(row["revoked"]) if row["revoked"] else None,
    )
