"""The firmware's programs signed by a card (SoftHSM2), judged by others; what is no good is refused in time."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance_image.image.errors import ImageError
from appliance_image.image.keys import SigningKey, read_key
from appliance_image.image.uki import LOADER, boot_loader
from appliance_image.image.workshop import Workshop
from appliance_image.signing.authenticode import NotSignedError, digest
from appliance_image.signing.card import Card
from netpolicy.topology.load import load_topology
from tests.bundle.making import MODULE, PIN, import_key, make_token
from tests.image.conftest import pair

TOKEN = "boot"  # noqa: S105 - a name


def _card(softhsm: Path, pin: str = PIN, token: str = TOKEN) -> Card:
    return Card(MODULE, token, lambda _: pin, softhsm / "pin")


@pytest.fixture
def certificate(softhsm: Path) -> Path:
    """Return the certificate of the one key on the token."""
    make_token(softhsm, TOKEN)
    key, found = pair(softhsm, "/CN=Ministry")
    import_key(softhsm, TOKEN, key)
    key.unlink()
    return found


def _signed(card: Card, certificate: Path, shop: Workshop) -> Path:
    return boot_loader(read_key(card, certificate, shop, test=False), shop)


def test_a_card_signs_what_others_accept(softhsm: Path, certificate: Path, shop: Workshop) -> None:
    """By osslsigncode, digest and signature are right, and one changed byte is wrong; the time is the lock file's."""
    signed = _signed(_card(softhsm), certificate, shop)
    content = signed.read_bytes()
    argv: list[str | Path] = ["osslsigncode", "verify", "-CAfile", certificate, "-in", signed]
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    assert "Signature verification: ok" in said
    at = datetime.fromtimestamp(shop.epoch, UTC)
    assert f"Signing time: {at:%b} {at.day:2} {at:%H:%M:%S %Y} GMT" in said
    again = _signed(_card(softhsm), certificate, shop).read_bytes()
    assert again == content
    changed = bytearray(content)
    changed[len(changed) // 3] ^= 1
    signed.write_bytes(changed)
    assert subprocess.run(argv, check=False, capture_output=True).returncode != 0


def test_the_digest_is_that_of_systemd(softhsm: Path, shop: Workshop) -> None:
    """What is signed of a program is what systemd-sbsign signs of it, which has no other way to say so."""
    key, certificate = pair(softhsm, "/CN=Ministry")
    unsigned = (shop.root / LOADER).read_bytes()
    signed = boot_loader(SigningKey(key, certificate, "/CN=Ministry"), shop).read_bytes()
    assert digest(unsigned + bytes(-len(unsigned) % 8)) in signed[len(unsigned) :]
    with pytest.raises(NotSignedError, match="signed already"):
        digest(signed)
    for nonsense in (b"", b"MZ" * 100, bytes(4096)):
        with pytest.raises(NotSignedError, match="no program"):
            digest(nonsense)


@pytest.mark.parametrize("wrong", ["pin", "token", "certificate", "kind"])
def test_a_card_that_does_not_sign(
    softhsm: Path, certificate: Path, shop: Workshop, tmp_path: Path, wrong: str
) -> None:
    """Each says why."""
    other = tmp_path / "other"
    other.mkdir()
    card, said = {
        "pin": (_card(softhsm, "000000"), "wrong-pin: .* 2 more are"),
        "token": (_card(softhsm, token="absent"), "no-card: .*there are: 'boot'"),  # noqa: S106 - a name
        "certificate": (_card(softhsm), "of another key"),
        "kind": (_card(softhsm), "not an RSA key"),
    }[wrong]
    if wrong in {"certificate", "kind"}:
        certificate = pair(other, "/CN=Ministry", "rsa:2048" if wrong == "certificate" else "ed25519")[1]
    with pytest.raises(ImageError, match=said):
        _signed(card, certificate, shop)


def test_a_build_with_a_card(certificate: Path, tmp_path: Path) -> None:
    """A production image, from the command line; a wrong PIN ends it before anything is made; and one unsigned."""
    pin = tmp_path / "pin"
    pin.touch(mode=0o600)
    netpolicy = [sys.executable, "-c", "import sys; from netpolicy.cli import main; sys.exit(main())"]
    argv = [*netpolicy, "image", "build", "--module", str(MODULE), "--token", TOKEN, "--pin-file", str(pin), "--out",
            str(tmp_path / "image"), "--pin-counts", str(tmp_path / "counts")]  # fmt: skip
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert (done.returncode, "--secure-boot-certificate goes with" in done.stderr) == (2, True)
    argv += ["--secure-boot-certificate", str(certificate)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert (done.returncode, "needs --trust" in done.stderr) == (2, True)
    trusted = tmp_path / "trust"
    trusted.mkdir()
    manager = next(iter(load_topology(Path("topology.yaml")).topology.managers))
    (trusted / f"{manager}.pem").write_bytes(certificate.read_bytes())
    argv += ["--trust", str(trusted)]
    done = subprocess.run([*argv, "--topology", "no.yaml"], check=False, capture_output=True, text=True)
    assert (done.returncode, "no.yaml" in done.stderr) == (2, True)
    pin.write_text("000000")
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert (done.returncode, "wrong-pin" in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "image").exists()
    pin.write_text(PIN)
    done = subprocess.run([*argv, "--json"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["test"], found["signed_by"]) == (False, "subject=CN=Ministry")
    assert (len(found["firewalls"]), found["trust"]) == (22, [manager])
    verify: list[str | Path] = ["osslsigncode", "verify", "-CAfile", certificate, "-in", tmp_path / "image/kernel.efi"]
    subprocess.run(verify, check=True, capture_output=True)
    assert not (tmp_path / "image/private").exists()
    # Who has no key can build what was signed, and compare.
    argv = [*netpolicy, "image", "build", "--trust", str(trusted), "--out", str(tmp_path / "compared")]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert (done.returncode, "signed by    nobody" in done.stdout) == (0, True), done.stderr
    compared = json.loads((tmp_path / "compared/image.json").read_text(encoding="utf-8"))
    assert (compared["test"], compared["signed_by"]) == (False, None)
    assert compared["roothash"] == found["roothash"]
    unsigned = "kernel.unsigned.efi"
    assert compared["files"][unsigned] == found["files"][unsigned]
    assert set(found["files"]) - set(compared["files"]) == {"kernel.efi", "secure-boot.pem"}
