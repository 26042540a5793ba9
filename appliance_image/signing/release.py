"""An image update, signed: what the boot of the other slot is made of."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from appliance_image.agent.release import FILES, MANIFEST, SIGNATURE, Part, Release
from appliance_image.bundle import cms
from appliance_image.signing.key import SigningKey

_OPTIONS = (
    pkcs7.PKCS7Options.DetachedSignature,
    pkcs7.PKCS7Options.Binary,
    pkcs7.PKCS7Options.NoCapabilities,
)


def write_update(
    out: Path, version: str, roothash: str, files: dict[str, Path], *, keys: Sequence[SigningKey], crl: bytes
) -> Release:
    """Write an image update; the same files and version give the same bytes but for the signature.

    Args:
        out: The file.
        version: Higher than those of the images that it replaces.
        roothash: Of the hash tree.
        files: ``kernel.efi``, ``root.erofs`` and ``root.verity``.
        keys: Of persons whom the authority of releases has certified for the signing of code; a firewall demands as
            many as of its bundles.
        crl: The revocation lists of that authority (PEM).

    Raises:
        OSError: A file cannot be read, or `out` not be written.

    """
    release = Release(version, roothash, {name: _part(files[name]) for name in FILES}, crl.decode("ascii"))
    manifest = release.emit()
    signature = cms.join(each for key in keys for each in cms.split(_signed(manifest, key)))
    fresh = out.with_name(f"{out.name}.new")
    with tarfile.open(fresh, "w:", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in ((MANIFEST, manifest), (SIGNATURE, signature)):
            archive.addfile(_entry(name, len(content)), io.BytesIO(content))
        for name in FILES:
            with files[name].open("rb") as stream:
                archive.addfile(_entry(name, release.parts[name].size), stream)
    fresh.replace(out)
    return release


def _signed(manifest: bytes, key: SigningKey) -> bytes:
    return (
        pkcs7.PKCS7SignatureBuilder()
        .set_data(manifest)
        .add_signer(key.certificate, key.private, key.digest())
        .sign(Encoding.DER, list(_OPTIONS))
    )


def _part(path: Path) -> Part:
    with path.open("rb") as stream:
        return Part(hashlib.file_digest(stream, "sha256").hexdigest(), path.stat().st_size)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry
