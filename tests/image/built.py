"""One test image for all tests that want one: built once, and again when anything that goes into it has changed."""

from __future__ import annotations

import fcntl
import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from appliance_image.image import own
from appliance_image.image.build import Wish, build, read_trust
from appliance_image.image.errors import LackingError
from appliance_image.image.inventory import inventory
from appliance_image.image.packages import Lock, changes, fetch, lock_path, pin, read_lock
from appliance_image.image.places import CACHE, PROJECT
from appliance_image.image.workshop import tool_root
from appliance_image.signing.key import SigningKey
from appliance_image.signing.sign import unsafe_file_key
from appliance_image.vm.operators import TrialOperators
from netpolicy.cli._vm import operators_of
from netpolicy.pki.authority import Authority, Span, new_key
from netpolicy.pki.purpose import CODE_SIGNING
from netpolicy.topology.load import load_topology

DIRECTORY = PROJECT / ".image"
IMAGE = DIRECTORY / "test"
SECOND = DIRECTORY / "second"
RELEASE = DIRECTORY / "release"
_YEARS = timedelta(days=3650)


def lock_for_tests() -> Lock:
    """Return the pinned packages; where a mirror has dropped one, today's, which is told and fails no test."""
    lock = read_lock(lock_path("virtual"))
    try:
        fetch(lock, CACHE / "packages", None, offline=False)
    except LackingError as gone:
        new = pin("virtual", None)
        print(f"{gone}\ntoday's packages instead: {'; '.join(changes(lock, new))}", file=sys.stderr)
        return new
    return lock


def tools_for_tests() -> Path:
    """Return the root of the tools that the lock file pins."""
    return tool_root(fetch(lock_for_tests().of("tools"), CACHE / "packages", None, offline=False), CACHE)


def wish_for_tests() -> Wish:
    """Return the image of the miniature network, which trusts its trial operators."""
    topology = load_topology(PROJECT / "topology.yaml").topology
    lock = lock_for_tests()
    return Wish(
        lock=lock,
        version=f"{lock.snapshot:%Y%m%d}",
        test=True,
        inventory=inventory(topology),
        trust=read_trust(TrialOperators.make(operators_of(topology), topology).trust.directory, topology),
        release_authority=(_released_by() / "authority.pem").read_bytes(),
    )


def image_for_tests() -> Path:
    """Return the directory of the test image."""
    with _alone():
        return _built(wish_for_tests(), IMAGE)


def second_for_tests() -> Path:
    """Return the directory of a test image of a higher version, signed by the same key."""
    private = image_for_tests() / "private"
    key, certificate = private / "secure-boot.key", private / "secure-boot.pem"
    with _alone():
        wish = wish_for_tests()
        return _built(replace(wish, version=f"{wish.version}.1", key=key, certificate=certificate), SECOND)


def release_key() -> SigningKey:
    """Return the key that signs updates which the test image takes."""
    place = _released_by()
    return unsafe_file_key(place / "key.pem", x509.load_pem_x509_certificate((place / "signer.pem").read_bytes()))


def release_lists() -> bytes:
    """Return the revocation list of those whose updates the test image takes."""
    return (_released_by() / "crl.pem").read_bytes()


@contextmanager
def _alone() -> Iterator[None]:
    """Let one process of several that test side by side build; the others wait, and find what it has built."""
    DIRECTORY.mkdir(exist_ok=True)
    with (DIRECTORY / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _released_by() -> Path:
    """Return the directory of an authority of releases for tests; it is made where there is none."""
    if not (RELEASE / "crl.pem").is_file():
        RELEASE.mkdir(mode=0o700, parents=True, exist_ok=True)
        now = datetime.now(UTC)
        authority, key = Authority.root("test", now - timedelta(days=2), title="TEST releases"), new_key()
        span = Span(now - timedelta(days=1), now + _YEARS)
        signer = authority.operator("TEST-release", "Test releases", key.public_key(), span, purpose=CODE_SIGNING)
        (RELEASE / "authority.pem").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
        (RELEASE / "signer.pem").write_bytes(signer.public_bytes(Encoding.PEM))
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (RELEASE / "key.new").touch(mode=0o600)
        (RELEASE / "key.new").write_bytes(private)
        (RELEASE / "key.new").rename(RELEASE / "key.pem")
        (RELEASE / "crl.new").write_bytes(authority.crl(now, life=_YEARS).public_bytes(Encoding.PEM))
        (RELEASE / "crl.new").rename(RELEASE / "crl.pem")
    return RELEASE


def _built(wish: Wish, out: Path) -> Path:
    """Return a directory with what is wanted, built anew if it is something else."""
    named, key = out.with_name(f"{out.name}.key"), _key(wish)
    if not (out / "image.json").is_file() or not named.is_file() or named.read_text() != key:
        named.unlink(missing_ok=True)
        build(wish, out)
        named.write_text(key)
    return out


def _key(wish: Wish) -> str:
    """Return what names all that goes into an image."""
    given = (wish.lock.text(), wish.version, wish.inventory, sorted(wish.trust.items()), wish.release_authority)
    found = hashlib.sha256(repr(given).encode())
    paths = set(own.needed().values())
    for directory in ("image", "agent/units", "management/units"):
        paths |= {path for path in (PROJECT / "appliance_image" / directory).rglob("*") if path.is_file()}
    for path in sorted(paths):
        if "__pycache__" not in path.parts:
            found.update(str(path.relative_to(PROJECT)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


if __name__ == "__main__":
    print(image_for_tests())
