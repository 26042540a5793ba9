"""Operators for trials: two people of each manager, with keys in files that anybody here can use.

An image that trusts them is a test image, and says so on its console.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from appliance_image.bundle.trust import Trust
from appliance_image.signing.key import SigningKey
from appliance_image.signing.sign import unsafe_file_key
from netpolicy.pki.authority import new_key
from netpolicy.pki.operators import Operators
from netpolicy.topology.model import Topology

PEOPLE = ("first", "second")
_FRESH = timedelta(days=10)
"""How long a revocation list must last."""
_STORE, _KEYS = "authorities", "keys"


@dataclass(frozen=True, slots=True)
class TrialOperators:
    """A directory of authorities and of their operators' keys (0700), outside of any repository."""

    directory: Path

    @classmethod
    def make(cls, directory: Path, topology: Topology) -> TrialOperators:
        """Make authorities and operators for all managers of a topology; what is there already stays.

        Raises:
            PkiError: The directory holds something else, or is inside a repository.

        """
        found = cls(directory)
        if (directory / _KEYS).is_dir():
            return found
        now = datetime.now(UTC)
        store = Operators.init(directory / _STORE, topology, now)
        directory.chmod(0o700)
        keys = directory / f"{_KEYS}.new"
        keys.mkdir(mode=0o700)
        for manager in topology.managers:
            for person in PEOPLE:
                key = new_key()
                made = store.issue(manager, f"TRIAL-{person}", f"Trial operator, the {person}", key.public_key(), now)
                place = keys / f"{manager}-{person}"
                private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
                place.with_suffix(".key").touch(mode=0o600)
                place.with_suffix(".key").write_bytes(private)
                place.with_suffix(".pem").write_bytes(made.public_bytes(Encoding.PEM))
        keys.rename(directory / _KEYS)
        return found

    @property
    def store(self) -> Operators:
        """The authorities.

        Raises:
            PkiError: There are none.

        """
        return Operators.open(self.directory / _STORE)

    @property
    def trust(self) -> Trust:
        """What an image must trust."""
        return Trust(self.directory / _STORE / "trust")

    def key(self, manager: str, person: str) -> SigningKey:
        """Return the key of one of a manager's :data:`PEOPLE`.

        Raises:
            OSError: There is none.

        """
        place = self.directory / _KEYS / f"{manager}-{person}"
        certificate = x509.load_pem_x509_certificate(place.with_suffix(".pem").read_bytes())
        return unsafe_file_key(place.with_suffix(".key"), certificate)

    def revocations(self, manager: str) -> bytes:
        """Return a manager's revocation list (PEM), a new one where it is old.

        Raises:
            OSError: There is none.

        """
        path = self.directory / _STORE / manager / "crl.pem"
        now = datetime.now(UTC)
        ends = x509.load_pem_x509_crl(path.read_bytes()).next_update_utc
        if ends is None or ends < now + _FRESH:
            self.store.publish(manager, now)
        return path.read_bytes()
