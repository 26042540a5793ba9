"""Who counts as one person, and one key, however certificates write them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from appliance_image.bundle import Code, Refused
from appliance_image.bundle.certificate import public_key
from appliance_image.signing.key import SigningKey
from appliance_image.signing.sign import add_signature
from netpolicy.pki.authority import Span, new_key
from netpolicy.pki.operators import Operators
from netpolicy.pki.store import PkiError
from netpolicy.topology.load import load_topology
from tests.bundle.conftest import ROOT
from tests.bundle.making import DAY, MANAGER, NOW, ONE, TWO, Site, raw_signature, with_signatures


def _numbered(site: Site, number: str, kind: _ASN1Type = _ASN1Type.UTF8String) -> SigningKey:
    """Return an operator whose number is written in the certificate as it is here."""
    key = site.person("holder", number="1")
    old = key.certificate
    parts = [*list(old.subject)[:-1], x509.NameAttribute(NameOID.SERIAL_NUMBER, number, kind, _validate=False)]
    builder = x509.CertificateBuilder().issuer_name(old.issuer).subject_name(x509.Name(parts))
    builder = builder.public_key(old.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(NOW - DAY).not_valid_after(NOW + 365 * DAY)
    for each in old.extensions:
        builder = builder.add_extension(each.value, each.critical)
    return replace(key, certificate=builder.sign(site.operators.key, hashes.SHA256()))


@pytest.mark.parametrize("other", ["a1", " A1 ", "\N{FULLWIDTH LATIN CAPITAL LETTER A}1", "A\N{SUPERSCRIPT ONE}"])
def test_one_person_however_written(site: Site, other: str) -> None:
    """Case, width and spaces around do not make another person: two such signatures are one operator's."""
    one, two = _numbered(site, "A1", _ASN1Type.PrintableString), _numbered(site, other)
    bundle = site.order(TWO)
    both = with_signatures(bundle, [raw_signature(bundle, one), raw_signature(bundle, two)])
    with pytest.raises(Refused) as refused:
        site.verify(both)
    assert refused.value.code == Code.TOO_FEW_OPERATORS
    with pytest.raises(Refused) as refused:
        add_signature(add_signature(bundle, one, site.trust, NOW)[0], two, site.trust, NOW)
    assert refused.value.code == Code.SIGNED_ALREADY


@pytest.mark.parametrize("number", ["\N{CYRILLIC CAPITAL LETTER A}1", "A\N{ZERO WIDTH SPACE}1", "A\x001", "A" * 65])
def test_number_of_nobody(site: Site, number: str) -> None:
    """What is no PrintableString of X.520 could look like another person's number: it names nobody."""
    bundle = site.order(ONE)
    with pytest.raises(Refused) as refused:
        site.verify(with_signatures(bundle, [raw_signature(bundle, _numbered(site, number))]))
    assert refused.value.code == Code.WRONG_PURPOSE


def test_one_key_however_written() -> None:
    """A point with one coordinate or both is one key, and so is the point on the other side of the curve."""
    public = new_key().public_key()
    plain = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    point = public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    head = plain[2 : -len(public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)) - 3]
    found = {public_key(plain)}
    for sign in (b"\2", b"\3"):
        bits = b"\x03" + bytes([len(point) + 1]) + b"\0" + sign + point[1:]
        found.add(public_key(b"\x30" + bytes([len(head) + len(bits)]) + head + bits))
    assert found == {point[1:]}
    assert public_key(new_key().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)) != point[1:]


def test_two_keys_of_one_point_count_once(site: Site) -> None:
    """Whoever has a private key has its negative, whose certificate is another person's as far as bytes tell."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256 (SEC 2, 2.4.2)
    one = site.person("sato")
    number = one.private.private_numbers().private_value  # type: ignore[union-attr]
    negative = ec.derive_private_key(order - number, ec.SECP256R1())
    span = Span(NOW - DAY, NOW + 365 * DAY)
    two = SigningKey(negative, site.operators.operator("suzuki", "suzuki", negative.public_key(), span), "memory")
    bundle = site.order(TWO)
    with pytest.raises(Refused) as refused:
        site.verify(with_signatures(bundle, [raw_signature(bundle, one), raw_signature(bundle, two)]))
    assert refused.value.code == Code.TOO_FEW_OPERATORS


def test_an_authority_gives_one_number_in_one_way(tmp_path: Path) -> None:
    """An operator's number is not issued again as another text, and is none in other letters."""
    store = Operators.init(tmp_path / "operators", load_topology(ROOT / "topology.yaml").topology, NOW)
    store.issue(MANAGER, "A1", "Sato", new_key().public_key(), NOW)
    store.issue(MANAGER, "A1", "Sato", new_key().public_key(), NOW)
    for number, text in (("a1", "write it as 'A1'"), ("\N{CYRILLIC CAPITAL LETTER A}1", "no number of an operator")):
        with pytest.raises(PkiError, match=text):
            store.issue(MANAGER, number, "Suzuki", new_key().public_key(), NOW)
