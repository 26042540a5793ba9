"""The bundle of one firewall for a trial: with the certificates of that trial pinned, signed by trial operators."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from appliance_image.bundle.archive import file_name
from appliance_image.signing.prepare import Order, prepare
from appliance_image.signing.sign import add_signature
from appliance_image.vm.operators import PEOPLE, TrialOperators
from netpolicy.build.manifest import MANIFEST
from netpolicy.build.pins import pin_certificates

LIFE = timedelta(days=1)
_EARLIER = timedelta(minutes=10)
"""A machine's clock may be a little behind."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What bundle is wanted; by default one that the firewall must accept."""

    firewall: str
    serial: int = 1
    people: Sequence[str] | None = None
    """Who of the manager signs; by default as many as the build says."""
    not_before: datetime | None = None
    life: timedelta = LIFE
    authorities: bytes | None = None
    """Roots and issuers of all ends (PEM)."""


def pinned_build(build: Path, firewall: str, certificates: Mapping[str, Iterable[str]], place: Path) -> Path:
    """Copy one firewall of a build to `place`, its engine holding ends to these certificates.

    It is what a topology that names the certificates (``fingerprints``) would compile to; its manifest says so.

    Args:
        build: What was compiled.
        firewall: Its id.
        certificates: SHA-1 in hexadecimal, by end.
        place: A new directory.

    """
    place.mkdir()
    shutil.copytree(build / firewall, place / firewall)
    pin_certificates(place / firewall / "suricata", certificates)
    manifest = json.loads((build / MANIFEST).read_text(encoding="utf-8"))
    hashes = {name: value for name, value in manifest["files_sha256"].items() if name.startswith(f"{firewall}/")}
    for name in hashes:
        hashes[name] = hashlib.sha256((place / name).read_bytes()).hexdigest()
    manifest["files_sha256"] = hashes
    (place / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return place


def write_bundle(build: Path, wish: Wish, operators: TrialOperators, directory: Path) -> Path:
    """Write the bundle of a firewall into a directory, signed, and return where.

    Raises:
        Refused: The build was changed after it was compiled, or nobody may sign it like this.
        BuildError: It is no build, or has no such firewall.

    """
    known = json.loads((build / MANIFEST).read_text(encoding="utf-8"))["firewalls"][wish.firewall]
    manager = known["managed_by"]
    now = datetime.now(UTC)
    begin = wish.not_before or now - _EARLIER
    crl = operators.revocations(manager)
    bundle = prepare(build, Order(wish.firewall, wish.serial, begin, wish.life, crl, wish.authorities))
    people = PEOPLE[: known["signatures"]] if wish.people is None else wish.people
    for person in people:
        bundle, _ = add_signature(bundle, operators.key(manager, person), operators.trust, now)
    path = directory / file_name(bundle.manifest)
    path.write_bytes(bundle.content)
    return path
