"""Why a bundle, or a signature on one, is refused."""

from __future__ import annotations

import enum


class Code(enum.StrEnum):
    """What a program can tell refusals apart by; each stands for one reason."""

    MALFORMED = "malformed"
    """It is not in the form of a bundle, or is larger than one may be."""
    UNSIGNED = "unsigned"
    """It holds no signature."""
    ALTERED = "altered"
    """A signature or a hash does not fit what it is over."""
    OTHER_NETWORK = "other-network"
    """It is of another network."""
    OTHER_FIREWALL = "other-firewall"
    """It is another firewall's."""
    OTHER_MANAGER = "other-manager"
    """It says that another manager answers for the firewall."""
    OLDER_SERIAL = "older-serial"
    """Its serial is below the one that was accepted before."""
    SAME_SERIAL = "same-serial"
    """Its serial was given to another bundle before."""
    NOT_YET_VALID = "not-yet-valid"
    """Its time has not come."""
    EXPIRED = "expired"
    """Its time is over."""
    NO_TRUST = "no-trust"
    """No authority of the manager's operators is known here."""
    WRONG_OPERATOR = "wrong-operator"
    """Nobody whom the manager's authority certified has signed it."""
    TOO_FEW_OPERATORS = "too-few-operators"
    """Fewer different operators have signed it than the firewall demands."""
    WRONG_PURPOSE = "wrong-purpose"
    """A signer's certificate is of the manager's authority, but not for the signing of bundles by a person."""
    SIGNER_EXPIRED = "signer-expired"
    """A signer's certificate, or its authority's, is over or has not begun."""
    REVOKED = "revoked"
    """A signer's certificate is revoked."""
    NO_CRL = "no-crl"
    """There is no revocation list of a signer's authority."""
    STALE_CRL = "stale-crl"
    """The revocation list is past the time of the next one, or from the future."""
    OLDER_CRL = "older-crl"
    """A newer revocation list has been seen here."""
    FALSE_CRL = "false-crl"
    """The revocation list is not what the authority signed."""
    WRONG_SIGNER = "wrong-signer"
    """Nobody who may has signed an image update."""
    NO_AUTHORITIES = "no-authorities"
    """It has a relay, and no authorities of the ends that the relay is to judge."""
    FALSE_AUTHORITY = "false-authority"
    """What it holds as authorities of ends is something else."""
    NO_CARD = "no-card"
    """The token, or the module that reaches it, is not there."""
    NO_KEY = "no-key"
    """The token holds no key that can sign, more than one, or none with a certificate."""
    WRONG_PIN = "wrong-pin"
    """The PIN is wrong."""
    PIN_LOCKED = "pin-locked"
    """The token has locked its PIN."""
    PIN_FINAL_TRY = "pin-final-try"
    """The token would lock its PIN if the next one were wrong."""
    PIN_BLOCKED = "pin-blocked"
    """Too many wrong PINs were given on this machine."""
    PIN_EXPOSED = "pin-exposed"
    """Others may read the file of the PIN, or of the key."""
    SIGNED_ALREADY = "signed-already"
    """The operator has signed it before."""


class Refused(Exception):  # noqa: N818 - it is an answer, not a mishap
    """A bundle is not accepted, or not signed."""

    def __init__(self, code: Code, text: str) -> None:
        self.code: str = code.value
        """One of :class:`Code`."""
        self.text = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
        """One sentence without a full stop, fit for a terminal."""
        super().__init__(f"{self.code}: {self.text}")
