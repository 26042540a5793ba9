"""Cards (SoftHSM2): the right PIN signs, wrong ones are counted, and a card that may lock itself is left alone."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pkcs11
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
)
from pkcs11.constants import Attribute, ObjectClass, TokenFlag

from appliance_image.bundle import Code, Refused
from appliance_image.signing.attempts import MOST, Attempts, default_directory
from appliance_image.signing.card import Card, card_key
from appliance_image.signing.enrol import enrol
from appliance_image.signing.secret import read_pin
from appliance_image.signing.sign import add_signature, unsafe_file_key
from netpolicy.pki.authority import Span
from tests.bundle.making import DAY, MODULE, NOW, ONE, PIN, SO_PIN, Site, make_token, set_token_flags

TOKEN = "operator sato"  # noqa: S105 - a name


def _card(directory: Path, pin: str = PIN, *, final_try: bool = False, token: str = TOKEN) -> Card:
    return Card(MODULE, token, lambda _: pin, directory / "pin", final_try)


def _certify(site: Site, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> x509.Certificate:
    return site.operators.operator("sato", "1", key, Span.of(NOW, 365 * DAY))


def _refused(card: Card) -> Refused:
    with pytest.raises(Refused) as refused, card.session():
        pass
    return refused.value


@pytest.fixture
def token(site: Site, softhsm: Path) -> Path:
    """Return where a token with an operator's key is."""
    make_token(softhsm, TOKEN)
    enrol(_card(softhsm), lambda key: _certify(site, key))
    return softhsm


def test_card_signs(site: Site, token: Path) -> None:
    """The key on a card signs a bundle, and cannot leave the card."""
    with card_key(_card(token)) as key:
        bundle, operators = add_signature(site.order(ONE), key, site.trust, NOW)
        with pytest.raises(TypeError, match="stays on the card"):
            key.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert [each.person for each in operators] == ["1"]
    assert site.verify(bundle).operators == operators
    with _card(token).session() as login:
        (held,) = login.session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})
        assert (held[Attribute.SENSITIVE], held[Attribute.EXTRACTABLE], held[Attribute.LOCAL]) == (True, False, True)


@pytest.mark.parametrize("always", [False, True], ids=["once", "for-every-signature"])
def test_rsa_card_signs(site: Site, softhsm: Path, always: bool) -> None:
    """So does an RSA key, also one that wants the PIN for every signature (CKA_ALWAYS_AUTHENTICATE)."""
    make_token(softhsm, TOKEN)
    with _card(softhsm).session(write=True) as login:
        public, _ = login.session.generate_keypair(
            pkcs11.KeyType.RSA, 2048, store=True, private_template={Attribute.ALWAYS_AUTHENTICATE: always}
        )
        plain = rsa.RSAPublicNumbers(
            int.from_bytes(public[Attribute.PUBLIC_EXPONENT], "big"), int.from_bytes(public[Attribute.MODULUS], "big")
        ).public_key()
    with card_key(_card(softhsm), certificate=_certify(site, plain)) as key:
        bundle, _ = add_signature(site.order(ONE), key, site.trust, NOW)
    site.verify(bundle)


def test_wrong_pins_lock_out(token: Path) -> None:
    """After three wrong PINs not even the right one is tried, until an administrator allows it."""
    for left in ("2 more are", "1 more is", "no more are"):
        refused = _refused(_card(token, "000000"))
        assert refused.code == Code.WRONG_PIN
        assert left in refused.text
    for pin in ("000000", PIN):
        refused = _refused(_card(token, pin))
        assert refused.code == Code.PIN_BLOCKED
        assert "unlock-token" in refused.text
    assert _card(token).unlock() == MOST
    with _card(token).session():
        pass


def test_right_pin_clears_the_count(token: Path) -> None:
    """Wrong PINs are counted in a row."""
    for _ in range(3):
        assert _refused(_card(token, "000000")).code == Code.WRONG_PIN
        assert _refused(_card(token, "00")).code == Code.WRONG_PIN
        with _card(token).session():
            pass


def test_nobody_is_asked_when_blocked(token: Path) -> None:
    """Once the count is full nobody is asked for a PIN."""
    for _ in range(MOST):
        _refused(_card(token, "000000"))

    def never(_: str) -> str:
        raise AssertionError("asked")

    assert _refused(Card(MODULE, TOKEN, never, token / "pin")).code == Code.PIN_BLOCKED


def test_count_is_on_the_disk_before_the_card_is_asked(tmp_path: Path) -> None:
    """A program that is ended while it tries a PIN has used one up, and what is damaged counts as full."""
    attempts = Attempts(tmp_path / "pin", "token")
    seen = []

    def ended() -> None:
        with attempts.one():
            seen.append(attempts.wrong())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ended()
    assert (seen, attempts.wrong()) == ([1], 1)
    with pytest.raises(OSError, match="unplugged"), attempts.one():
        raise OSError("unplugged")
    assert attempts.wrong() == 1
    assert stat.S_IMODE((tmp_path / "pin").stat().st_mode) == 0o700
    (path,) = (tmp_path / "pin").iterdir()
    path.write_text("-5\n")
    assert attempts.wrong() == MOST
    with pytest.raises(Refused, match="pin-blocked"), attempts.one():
        pass
    assert Attempts(tmp_path / "pin", "another").wrong() == 0


def test_locked_card(token: Path) -> None:
    """A card that says that its PIN is locked is refused before anybody is asked, and is not unlocked here."""
    set_token_flags(token, TOKEN, TokenFlag.USER_PIN_LOCKED)
    assert _refused(_card(token)).code == Code.PIN_LOCKED
    assert _refused(_card(token, final_try=True)).code == Code.PIN_LOCKED
    with pytest.raises(Refused, match="pin-locked"):
        _card(token).unlock()


def test_final_try(token: Path) -> None:
    """A card that would lock itself is only tried when that is asked for."""
    set_token_flags(token, TOKEN, TokenFlag.USER_PIN_FINAL_TRY)
    assert _refused(_card(token)).code == Code.PIN_FINAL_TRY
    with _card(token, final_try=True).session():
        pass


def test_no_card(token: Path, tmp_path: Path) -> None:
    """A token that is not there, or a module that is none, is told; the tokens that are there are named."""
    refused = _refused(_card(token, token="operator suzuki"))  # noqa: S106 - a name
    assert refused.code == Code.NO_CARD
    assert TOKEN in refused.text
    none = tmp_path / "none.so"
    assert _refused(Card(none, TOKEN, lambda _: PIN, token / "pin")).code == Code.NO_CARD
    none.write_bytes(b"no library")
    assert _refused(Card(none, TOKEN, lambda _: PIN, token / "pin")).code == Code.NO_CARD


def test_two_tokens_of_one_name(token: Path) -> None:
    """Which card is meant must be clear; its serial number says it."""
    make_token(token, TOKEN)
    assert _refused(_card(token)).code == Code.NO_CARD
    listed = subprocess.run(["softhsm2-util", "--show-slots"], check=True, capture_output=True, text=True).stdout
    serials = [
        line.split(":")[1].strip()
        for line in listed.splitlines()
        if "Serial number" in line and line.split(":")[1].strip()
    ]
    assert len(serials) == 2
    for serial in serials:
        with _card(token, token=serial).session():
            pass


def test_card_without_a_key(softhsm: Path) -> None:
    """An empty card signs nothing."""
    make_token(softhsm, TOKEN)
    with pytest.raises(Refused) as refused, card_key(_card(softhsm)):
        pass
    assert refused.value.code == Code.NO_KEY


def test_certificate_of_another_key(site: Site, token: Path) -> None:
    """A certificate that is not of the card's key is found out before anything is written."""
    other = _certify(site, ec.generate_private_key(ec.SECP256R1()).public_key())
    with card_key(_card(token), certificate=other) as key, pytest.raises(Refused) as refused:
        add_signature(site.order(ONE), key, site.trust, NOW)
    assert refused.value.code == Code.NO_KEY


def test_enrolling_twice_or_in_vain(site: Site, token: Path) -> None:
    """A card holds one operator's key; and when no certificate comes, no key stays."""
    with pytest.raises(Refused) as refused:
        enrol(_card(token), lambda key: _certify(site, key))
    assert refused.value.code == Code.NO_KEY
    make_token(token, "empty")

    def fails(_: ec.EllipticCurvePublicKey) -> x509.Certificate:
        raise RuntimeError("no authority")

    with pytest.raises(RuntimeError, match="no authority"):
        enrol(_card(token, token="empty"), fails)  # noqa: S106 - a name
    with _card(token, token="empty").session() as login:  # noqa: S106
        assert list(login.session.get_objects({})) == []


def test_pin_file_is_its_owners(tmp_path: Path) -> None:
    """A PIN that others can read is not used; a link to one is not followed."""
    path = tmp_path / "pin.txt"
    path.write_text(f"{PIN}\n")
    for mode in (0o644, 0o640, 0o660, 0o602):
        path.chmod(mode)
        with pytest.raises(Refused) as refused:
            read_pin(path)
        assert refused.value.code == Code.PIN_EXPOSED
    path.chmod(0o600)
    assert read_pin(path) == PIN
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="symbolic"):
        read_pin(tmp_path / "link")
    os.chown(path, 65534, 65534)
    with pytest.raises(Refused, match="pin-exposed"):
        read_pin(path)


def test_unsafe_key_file(site: Site, tmp_path: Path) -> None:
    """A key file must be its owner's and fit the certificate."""
    private = ec.generate_private_key(ec.SECP256R1())
    certificate = _certify(site, private.public_key())
    path = tmp_path / "key.pem"
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o644)
    with pytest.raises(Refused, match="pin-exposed"):
        unsafe_file_key(path, certificate)
    path.chmod(0o600)
    bundle, _ = add_signature(site.order(ONE), unsafe_file_key(path, certificate), site.trust, NOW)
    site.verify(bundle)
    with pytest.raises(Refused, match="no-key"):
        unsafe_file_key(path, site.person("suzuki").certificate)
    path.write_bytes(b"nothing")
    with pytest.raises(Refused, match="no-key"):
        unsafe_file_key(path, certificate)


def test_where_counts_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Counts are state of the user's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "netpolicy/pin"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_directory() == tmp_path / ".local/state/netpolicy/pin"


def test_openssl_knows_the_key(token: Path) -> None:
    """The certificate on the card is of the key on the card."""
    with _card(token).session() as login:
        (public,) = login.session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY})
        (held,) = login.session.get_objects({Attribute.CLASS: ObjectClass.CERTIFICATE})
        certificate = x509.load_der_x509_certificate(held[Attribute.VALUE])
        point = public[Attribute.EC_POINT]
        assert held[Attribute.ID] == public[Attribute.ID]
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert spki.endswith(point[2:])
    assert isinstance(load_der_public_key(spki), ec.EllipticCurvePublicKey)
    assert SO_PIN != PIN
