"""Signatures: what openssl makes of them, and the narrow form in which they are taken."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from appliance_image.bundle import Code, Refused, cms
from appliance_image.bundle.der import DerError, Element, decode, encode, encode_oid, encode_set
from appliance_image.signing.key import SigningKey
from netpolicy.pki.authority import Span
from tests.bundle.making import DAY, NOW, ONE, Site, authority, pem, person, raw_signature, rewritten, with_signatures

_EVERY = 31
"""Each so many bytes of the signatures, one is changed; all of them take a minute."""


def _openssl_signed(directory: Path, key: SigningKey, *options: str) -> bytes:
    """Return what ``openssl cms -sign`` makes for a manifest."""
    assert isinstance(key.private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    private = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (directory / "key.pem").write_bytes(private)
    (directory / "certificate.pem").write_bytes(pem(key.certificate))
    signer = ("-signer", str(directory / "certificate.pem"), "-inkey", str(directory / "key.pem"))
    files = ("-in", str(directory / "manifest"), "-out", str(directory / "signed"))
    subprocess.run(
        ["openssl", "cms", "-sign", "-binary", "-outform", "DER", "-md", "sha256", *signer, *files, *options],
        check=True,
        capture_output=True,
    )
    return (directory / "signed").read_bytes()


@pytest.mark.parametrize("kind", ["P-256", "P-384", "P-521", "RSA"])
def test_openssl_signs_as_well(site: Site, tmp_path: Path, kind: str) -> None:
    """What ``openssl cms -sign`` makes with any usual key is taken."""
    curves = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    key = rsa.generate_private_key(65537, 2048) if kind == "RSA" else ec.generate_private_key(curves[kind])
    certificate = site.operators.operator("sato", "1", key.public_key(), Span.of(NOW, 100 * DAY))
    bundle = site.order(ONE)
    (tmp_path / "manifest").write_bytes(bundle.manifest_json)
    signer = SigningKey(key, certificate, "memory")
    made = _openssl_signed(tmp_path, signer)
    assert len(site.verify(rewritten(bundle, bundle.manifest, cms=made)).operators) == 1
    ours = raw_signature(bundle, signer)
    assert len(site.verify(with_signatures(bundle, [ours])).operators) == 1


def test_openssl_options_that_are_not_taken(site: Site, tmp_path: Path) -> None:
    """Content inside, no certificate, no signed attributes, SHA-1, a key identifier instead of a name: refused."""
    bundle = site.order(ONE)
    (tmp_path / "manifest").write_bytes(bundle.manifest_json)
    for options in (["-nodetach"], ["-nocerts"], ["-noattr"], ["-md", "sha1"], ["-keyid"]):
        made = _openssl_signed(tmp_path, site.person("sato"), *options)
        with pytest.raises(Refused) as refused:
            site.verify(rewritten(bundle, bundle.manifest, cms=made))
        assert refused.value.code == Code.MALFORMED


def test_openssl_needs_all_signatures_right(site: Site, tmp_path: Path) -> None:
    """Why each signature is verified alone: one stranger's among them makes openssl refuse all."""
    bundle = site.order(ONE)
    good, other = raw_signature(bundle, site.person("sato")), raw_signature(bundle, person(authority("x"), "tanaka"))
    (tmp_path / "manifest").write_bytes(bundle.manifest_json)
    (tmp_path / "authority").write_bytes(pem(site.operators.certificate))
    codes = []
    for signatures in ([good], [other], [good, other]):
        (tmp_path / "cms").write_bytes(cms.join(signatures))
        command = ["openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", str(tmp_path / "cms")]
        command += ["-content", str(tmp_path / "manifest"), "-CAfile", str(tmp_path / "authority"), "-purpose", "any"]
        done = subprocess.run([*command, "-attime", str(int(NOW.timestamp()))], check=False, capture_output=True)
        codes.append(done.returncode == 0)
    assert codes == [True, False, False]


def test_any_byte_of_a_signature(site: Site) -> None:
    """No byte of the signatures can be another one, though not all of them are signed themselves."""
    bundle = site.signed(ONE, [site.person("sato"), site.person("suzuki")])
    assert bundle.cms is not None
    for place in range(0, len(bundle.cms), _EVERY):
        changed = bytearray(bundle.cms)
        changed[place] ^= 1
        with pytest.raises(Refused):
            site.verify(rewritten(bundle, bundle.manifest, cms=bytes(changed)), signatures=2)


def test_stowaways(site: Site) -> None:
    """A certificate that no signer has, a revocation list, or unsigned attributes among the signatures: refused."""
    bundle = site.signed(ONE, [site.person("sato")])
    assert bundle.cms is not None
    (signature,) = cms.split(bundle.cms)
    stranger = person(authority("x"), "tanaka").certificate.public_bytes(Encoding.DER)
    crl = authority("x").crl(NOW).public_bytes(Encoding.DER)
    unsigned = encode(0xA1, encode(0x30, encode_oid("1.2.3"), encode(0x31, encode(0x05))))
    kind, wrapped = decode(bundle.cms, 0x30).exactly(2)
    version, digests, content, certificates, infos = wrapped.exactly(1)[0].exactly(5)

    def rebuilt(*parts: bytes) -> bytes:
        return encode(0x30, kind.raw, encode(0xA0, encode(0x30, *parts)))

    more = encode_set([signature.certificate.raw, stranger], 0xA0)
    grown = encode(0x31, encode(0x30, *(part.raw for part in decode(signature.info, 0x30).children()), unsigned))
    assert rebuilt(*(part.raw for part in (version, digests, content, certificates, infos))) == bundle.cms
    for other in (
        rebuilt(version.raw, digests.raw, content.raw, more, infos.raw),
        rebuilt(version.raw, digests.raw, content.raw, certificates.raw, encode(0xA1, crl), infos.raw),
        rebuilt(version.raw, digests.raw, content.raw, certificates.raw, grown),
        rebuilt(version.raw, digests.raw, content.raw, infos.raw),
        bundle.cms + b"\0",
        b"",
    ):
        with pytest.raises(Refused) as refused:
            site.verify(rewritten(bundle, bundle.manifest, cms=other))
        assert refused.value.code == Code.MALFORMED


def test_too_many_signatures(site: Site) -> None:
    """How much openssl can be given to do is bounded."""
    bundle = site.order(ONE)
    keys = [person(authority("x"), f"p{number}") for number in range(cms.SIGNERS + 1)]
    with pytest.raises(Refused, match="signatures"):
        site.verify(with_signatures(bundle, [raw_signature(bundle, key) for key in keys]))


@pytest.mark.parametrize(
    "data",
    [b"", b"\x30", b"\x30\x01", b"\x30\x80\x00\x00", b"\x30\x81\x01\x00", b"\x30\x82\x00\x01\x00", b"\x30\x00\x00",
     b"\x1f\x81\x00\x00", b"\x30\x85\x01\x00\x00\x00\x00", b"\x31\x00"],
)  # fmt: skip
def test_not_der(data: bytes) -> None:
    """Lengths that are cut off, indefinite or too long, long tags, another tag, bytes behind: not DER as expected."""
    with pytest.raises(DerError):
        decode(data, 0x30)


def test_der_round_trip() -> None:
    """What is written is read again, at every size of length."""
    for size in (0, 1, 127, 128, 255, 256, 65535, 65536):
        content = bytes(size)
        assert decode(encode(0x04, content), 0x04) == Element(0x04, content, encode(0x04, content))
