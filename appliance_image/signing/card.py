"""An operator's card: found, looked at before its PIN is tried, and logged in to once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pkcs11
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pkcs11.constants import Attribute, CertificateType, ObjectClass, TokenFlag
from pkcs11.exceptions import PinIncorrect, PinInvalid, PinLenRange, PinLocked, PKCS11Error
from pkcs11.types import PROTECTED_AUTH

from appliance_image.bundle.refused import Code, Refused
from appliance_image.signing.attempts import MOST, Attempts
from appliance_image.signing.key import CardKey, EllipticCardKey, RsaCardKey, SigningKey


@dataclass(frozen=True, slots=True, repr=False)
class Login:
    """A session with a card."""

    session: Any
    """Of python-pkcs11."""
    pin: str | None
    """For keys that want it for every signature; None where the card's reader asks for it."""


@dataclass(frozen=True, slots=True)
class Card:
    """Which card, and how its PIN is had."""

    module: Path
    """The PKCS #11 library that reaches it."""
    token: str
    """The token's label, or its serial number."""
    pin: Callable[[str], str]
    """Asks for the PIN, with the token's name; called only when the PIN is going to be tried."""
    counts: Path
    """Where wrong PINs are counted, see :mod:`appliance_image.signing.attempts`."""
    final_try: bool = False
    """Whether the PIN may be tried though the token would lock it if it were wrong."""

    @contextmanager
    def session(self, *, write: bool = False) -> Iterator[Login]:
        """Log in to the card, once.

        Raises:
            Refused: The card is not there, or the PIN is locked, blocked or wrong.
            OSError: Wrong PINs cannot be counted.

        """
        with self._found() as token:
            _refuse_locked(token, final_try=self.final_try)
            asked = TokenFlag.PROTECTED_AUTHENTICATION_PATH not in token.flags
            attempts = Attempts(self.counts, _identity(token))
            # The count is looked at before anybody is asked for a PIN that would not be tried.
            _refuse_blocked(attempts)
            pin = self.pin(token.label) if asked else None
            with attempts.one():
                session = _login(token, pin, write=write, left=MOST - attempts.wrong())
            yield Login(session, pin)

    def unlock(self) -> int:
        """Forget the wrong PINs that were counted here for the token, and return how many there were.

        Raises:
            Refused: The card is not there, or has locked its PIN itself, which only the card's issuer can undo.
            OSError: The count cannot be removed.

        """
        with self._found() as token:
            attempts = Attempts(self.counts, _identity(token))
            before = attempts.wrong()
            attempts.clear()
            _refuse_locked(token, final_try=True)
        return before

    @contextmanager
    def _found(self) -> Iterator[pkcs11.Token]:
        if not self.module.is_file():
            raise Refused(Code.NO_CARD, f"there is no PKCS #11 module {self.module}")
        try:
            library = pkcs11.lib(str(self.module.resolve()))
        except (PKCS11Error, RuntimeError, OSError) as failed:
            raise Refused(Code.NO_CARD, f"{self.module} is no PKCS #11 module that works: {_said(failed)}") from failed
        try:
            tokens = [each for each in _tokens(library) if self.token in {each.label, each.serial.decode("latin-1")}]
            if len(tokens) != 1:
                known = ", ".join(sorted(f"'{each.label}'" for each in _tokens(library))) or "none"
                text = f"{len(tokens)} tokens are called '{self.token}' at {self.module}; there are: {known}"
                raise Refused(Code.NO_CARD, text)
            yield tokens[0]
        except PKCS11Error as failed:
            raise Refused(Code.NO_CARD, f"token '{self.token}' does not work: {_said(failed)}") from failed
        finally:
            library.finalize()


@contextmanager
def card_key(
    card: Card, *, label: str | None = None, certificate: x509.Certificate | None = None
) -> Iterator[SigningKey]:
    """Give the key of a card.

    Args:
        card: The card.
        label: The key's label, if the card holds several.
        certificate: The key's, if the card does not hold it.

    Raises:
        Refused: The card does not give the key.
        OSError: Wrong PINs cannot be counted.

    """
    with card.session() as login:
        session = login.session
        wanted = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.SIGN: True}
        held = [cast("pkcs11.PrivateKey", key) for key in session.get_objects(wanted)]
        keys = [key for key in held if label in {None, key[Attribute.LABEL]}]
        if len(keys) != 1:
            names = ", ".join(f"'{key[Attribute.LABEL]}'" for key in keys)
            text = f"token '{card.token}' holds {len(keys)} keys that sign{': ' if names else ''}{names}"
            raise Refused(Code.NO_KEY, f"{text}; name one of them" if names else text)
        key = keys[0]
        owner = certificate or _certificate(session, key, card.token)
        again = login.pin if key[Attribute.ALWAYS_AUTHENTICATE] else None
        yield SigningKey(_adapted(key, owner, again), owner, f"token {card.token}")


def _tokens(library: Any) -> Iterator[pkcs11.Token]:
    for slot in library.get_slots(token_present=True):
        token = slot.get_token()
        if TokenFlag.TOKEN_INITIALIZED in token.flags:
            yield token


def _identity(token: pkcs11.Token) -> str:
    return f"{token.manufacturer_id}\n{token.model}\n{token.serial.hex()}\n{token.label}"


def _refuse_locked(token: pkcs11.Token, *, final_try: bool) -> None:
    if TokenFlag.USER_PIN_LOCKED in token.flags:
        raise Refused(Code.PIN_LOCKED, f"token '{token.label}' has locked its PIN: its issuer can unlock it")
    if TokenFlag.USER_PIN_FINAL_TRY in token.flags and not final_try:
        text = f"token '{token.label}' locks its PIN if the next one is wrong; --final-try tries all the same"
        raise Refused(Code.PIN_FINAL_TRY, text)


def _refuse_blocked(attempts: Attempts) -> None:
    if attempts.wrong() >= MOST:
        with attempts.one():
            raise AssertionError("not reached: the count is full")


def _login(token: pkcs11.Token, pin: str | None, *, write: bool, left: int) -> pkcs11.Session:
    try:
        return token.open(rw=write, user_pin=PROTECTED_AUTH if pin is None else pin)
    except (PinIncorrect, PinInvalid, PinLenRange) as wrong:
        more = f"{left} more {'is' if left == 1 else 'are'} tried here" if left else "no more are tried here"
        raise Refused(Code.WRONG_PIN, f"the PIN of token '{token.label}' is wrong; {more}") from wrong
    except PinLocked as locked:
        text = f"token '{token.label}' has locked its PIN: its issuer can unlock it"
        raise Refused(Code.PIN_LOCKED, text) from locked


def _certificate(session: pkcs11.Session, key: pkcs11.PrivateKey, token: str) -> x509.Certificate:
    wanted = {
        Attribute.CLASS: ObjectClass.CERTIFICATE,
        Attribute.CERTIFICATE_TYPE: CertificateType.X_509,
        Attribute.ID: key[Attribute.ID],
    }
    found = list(session.get_objects(wanted))
    if len(found) != 1:
        text = f"token '{token}' holds {len(found)} certificates of its key; --certificate gives it"
        raise Refused(Code.NO_KEY, text)
    try:
        return x509.load_der_x509_certificate(found[0][Attribute.VALUE])
    except ValueError as wrong:
        raise Refused(Code.NO_KEY, f"what token '{token}' holds of its key is no certificate: {wrong}") from wrong


def _adapted(key: pkcs11.PrivateKey, certificate: x509.Certificate, pin: str | None) -> CardKey:
    public = certificate.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey) and key.key_type == pkcs11.KeyType.EC:
        return EllipticCardKey(key, public, pin)
    if isinstance(public, rsa.RSAPublicKey) and key.key_type == pkcs11.KeyType.RSA:
        return RsaCardKey(key, public, pin)
    raise Refused(Code.NO_KEY, "the certificate is not of the key, or the key is neither RSA nor of an elliptic curve")


def _said(failed: Exception) -> str:
    """Return what went wrong; exceptions of PKCS #11 often say it by their name only. None of them holds a PIN."""
    return str(failed) or type(failed).__name__
