"""What certificates and revocation lists say (RFC 5280); whether it is true, ``openssl`` says."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from appliance_image.bundle import der
from appliance_image.bundle.der import DerError, Element
from appliance_image.bundle.model import Signer
from netpolicy.pki.person import person_of
from netpolicy.pki.purpose import CODE_SIGNING, SIGNS_BUNDLES

_CERTIFICATE, _LIST = "CERTIFICATE", "X509 CRL"
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END \1-----\r?\n?")
_KEY_USAGE, _EXTENDED_KEY_USAGE, _BASIC_CONSTRAINTS, _CRL_NUMBER, _ALTERNATIVE_NAMES = (
    der.encode_oid(name) for name in ("2.5.29.15", "2.5.29.37", "2.5.29.19", "2.5.29.20", "2.5.29.17")
)
_PERSON = der.encode_oid("2.5.4.5")
_ATTRIBUTES = {
    der.encode_oid(f"2.5.4.{number}"): name
    for number, name in {3: "CN", 5: "serialNumber", 6: "C", 7: "L", 8: "ST", 10: "O", 11: "OU"}.items()
}
_RSA_KEYS = frozenset(der.encode_oid(f"1.2.840.113549.1.1.{number}") for number in (1, 10))
_EC_KEY = der.encode_oid("1.2.840.10045.2.1")
_POINTS = (b"\4", b"\2", b"\3")
"""How a point begins: with both coordinates, or with x alone (SEC 1, 2.3.3)."""
_DIGITAL_SIGNATURE, _CERT_SIGN, _CRL_SIGN = 0, 5, 6
_DELTA, _DISTRIBUTION_POINT = (der.encode_oid(name) for name in ("2.5.29.27", "2.5.29.28"))
_SHA2_SIGNATURES = frozenset(
    der.encode_oid(name)
    for name in (
        *(f"1.2.840.10045.4.3.{number}" for number in (2, 3, 4)),  # ECDSA (RFC 5758, 3.2)
        *(f"1.2.840.113549.1.1.{number}" for number in (11, 12, 13)),  # RSA, PKCS #1 v1.5 (RFC 4055, 5)
        "1.3.101.112",  # Ed25519 (RFC 8410)
    )
)


@dataclass(frozen=True, slots=True)
class Certificate:
    """The fields of a certificate that matter here."""

    raw: bytes
    serial: int
    serial_raw: bytes
    issuer: Element
    subject: Element
    not_before: datetime
    not_after: datetime
    key: bytes
    """SubjectPublicKeyInfo."""
    usages: frozenset[int]
    """The bits of the key usage that are set; empty if it does not say."""
    purposes: frozenset[bytes]
    """Of the extended key usage, as elements."""
    authority: bool
    names: bytes
    """The subject's alternative names, as an element (RFC 5280, 4.2.1.6); empty if there are none."""

    @property
    def signs_certificates(self) -> bool:
        """Whether it is an authority's."""
        return self.authority and (not self.usages or _CERT_SIGN in self.usages)

    @property
    def signs_lists(self) -> bool:
        """Whether it is an authority's whose revocation lists count."""
        return self.authority and (not self.usages or _CRL_SIGN in self.usages)

    @property
    def signs_bundles(self) -> bool:
        """Whether it is for the signing of bundles, and says so."""
        purpose = der.encode_oid(SIGNS_BUNDLES)
        return not self.authority and _DIGITAL_SIGNATURE in self.usages and purpose in self.purposes

    @property
    def signs_code(self) -> bool:
        """Whether it is for the signing of code, as image updates are (RFC 5280, 4.2.1.12)."""
        purpose = der.encode_oid(CODE_SIGNING)
        return not self.authority and _DIGITAL_SIGNATURE in self.usages and purpose in self.purposes

    def signer(self) -> Signer:
        """Return what is shown of it, and counted."""
        persons = [value for name, value in _attributes(self.subject) if name == _PERSON]
        return Signer(
            subject=name_text(self.subject),
            issuer=name_text(self.issuer),
            serial=self.serial,
            person=person_of(persons[0]) if len(persons) == 1 else None,
            key_sha256=hashlib.sha256(public_key(self.key)).hexdigest(),
            certificate=self.raw,
            not_after=self.not_after,
        )


@dataclass(frozen=True, slots=True)
class RevocationList:
    """The fields of a revocation list that matter here."""

    raw: bytes
    issuer: Element
    number: int | None
    """It rises from list to list of an authority (RFC 5280, 5.2.3)."""
    this_update: datetime
    next_update: datetime | None
    revoked: frozenset[int]
    """Serial numbers."""


def read_certificate(raw: bytes) -> Certificate:
    """Return a certificate's fields.

    Raises:
        DerError: It is none of version 3.

    """
    body, *_ = _parts(raw, 3)
    fields = body.children()
    if len(fields) < 8 or fields[0].tag != der.context(0) or fields[-1].tag != der.context(3):
        raise DerError("a certificate is not of version 3, or without extensions")
    extensions = _extensions(fields[-1])
    constraints = extensions.get(_BASIC_CONSTRAINTS)
    begin, end = fields[4].exactly(2)
    for name in (fields[3], fields[5]):
        list(_attributes(der.expect(name, der.SEQUENCE)))  # they are read later, when nothing may go wrong any more
    return Certificate(
        raw=raw,
        serial=der.integer(fields[1]),
        serial_raw=fields[1].raw,
        issuer=fields[3],
        subject=fields[5],
        not_before=der.time(begin),
        not_after=der.time(end),
        key=der.expect(fields[6], der.SEQUENCE).raw,
        usages=_bits(extensions.get(_KEY_USAGE)),
        purposes=_purposes(extensions.get(_EXTENDED_KEY_USAGE)),
        authority=constraints is not None
        and any(each.tag == der.BOOLEAN for each in der.decode(constraints, der.SEQUENCE).children()),
        names=extensions.get(_ALTERNATIVE_NAMES, b""),
    )


def read_list(raw: bytes) -> RevocationList:
    """Return the fields of a revocation list that is all of its authority's revocations, and speaks for no other one.

    A delta, which openssl takes for a whole one, would revoke next to nobody.

    Raises:
        DerError: It is none of version 2; is signed with less than SHA-2; is a delta (RFC 5280, 5.2.4), of a part
            (5.2.5) or indirect (5.3.3); or holds a critical extension.

    """
    body, algorithm, _ = _parts(raw, 3)
    fields = body.children()
    if len(fields) < 4 or fields[0].tag != der.INTEGER:
        raise DerError("a revocation list is not of version 2")
    if fields[1].raw != algorithm.raw or not any(each.raw in _SHA2_SIGNATURES for each in algorithm.children()[:1]):
        raise DerError("a revocation list is signed with an algorithm that does not count")
    at = 5 if len(fields) > 4 and fields[4].tag in {der.UTC_TIME, der.GENERALIZED_TIME} else 4
    entries = fields[at].children() if len(fields) > at and fields[at].tag == der.SEQUENCE else []
    found: dict[bytes, bytes] = {}
    if fields[-1].tag == der.context(0):
        found = _list_extensions(fields[-1].exactly(1)[0])
    if _DELTA in found or _DISTRIBUTION_POINT in found:
        raise DerError("a revocation list is a delta, or of a part of what its authority has revoked")
    number = found.get(_CRL_NUMBER)
    return RevocationList(
        raw=raw,
        issuer=der.expect(fields[2], der.SEQUENCE),
        number=None if number is None else der.integer(der.decode(number, der.INTEGER)),
        this_update=der.time(fields[3]),
        next_update=der.time(fields[4]) if at == 5 else None,
        revoked=frozenset(_revoked(each) for each in entries),
    )


def _revoked(entry: Element) -> int:
    """Return the serial number of an entry of a list."""
    serial, _, *more = der.expect(entry, der.SEQUENCE).children()
    for extensions in more:
        # The one critical extension that there is names another authority (RFC 5280, 5.3.3).
        _list_extensions(extensions)
    return der.integer(serial)


def _list_extensions(sequence: Element) -> dict[bytes, bytes]:
    """Return extensions of a list or of an entry, of which none may be critical but those that are refused by name."""
    for extension in der.expect(sequence, der.SEQUENCE).children():
        parts = extension.children()
        if len(parts) == 3 and parts[1].content != b"\0" and parts[0].raw not in {_DELTA, _DISTRIBUTION_POINT}:
            raise DerError("a revocation list has a critical extension")
    return _extensions_of(sequence)


def certificates(pem: bytes) -> list[Certificate]:
    """Return the certificates of a text that holds nothing else.

    Raises:
        DerError: It holds something else.

    """
    return [read_certificate(raw) for raw in _blocks(pem, _CERTIFICATE)]


def lists(pem: bytes) -> list[RevocationList]:
    """Return the revocation lists of a text that holds nothing else.

    Raises:
        DerError: It holds something else.

    """
    return [read_list(raw) for raw in _blocks(pem, _LIST)]


def certificate_pem(raw: bytes) -> bytes:
    """Return a certificate as text."""
    return _pem(raw, _CERTIFICATE)


def list_pem(raw: bytes) -> bytes:
    """Return a revocation list as text."""
    return _pem(raw, _LIST)


def name_text(name: Element) -> str:
    """Return a name for people, fit for a terminal."""
    parts = (f"{_ATTRIBUTES[kind]}={value}" for kind, value in _attributes(name) if kind in _ATTRIBUTES)
    text = ", ".join(parts) or "(no name)"
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def public_key(info: bytes) -> bytes:
    """Return what two public keys (SubjectPublicKeyInfo) have in common whose private keys are one.

    A point can be written in two ways, and a key of RSA be named for two schemes (RFC 5480, 2.2; RFC 4055, 1.2). Of a
    point only x counts: who has the private key d has n - d, whose point is the same but for y. A key of another kind
    is itself.
    """
    try:
        algorithm, bits = der.decode(info, der.SEQUENCE).exactly(2)
        kind = algorithm.children()[0].raw
        key = der.expect(bits, der.BIT_STRING).content[1:]
        if kind in _RSA_KEYS:
            return der.decode(key, der.SEQUENCE).children()[0].content
    except (DerError, IndexError):
        return info
    if kind == _EC_KEY and key[:1] in _POINTS:
        return key[1 : 1 + len(key) // 2] if key[:1] == _POINTS[0] else key[1:]
    return info


def _attributes(name: Element) -> Iterator[tuple[bytes, str]]:
    for relative in name.children():
        for attribute in der.expect(relative, der.SET).children():
            kind, value = attribute.exactly(2)
            yield kind.raw, value.content.decode("utf-16-be" if value.tag == 0x1E else "utf-8", "replace")


def _parts(raw: bytes, count: int) -> list[Element]:
    return der.decode(raw, der.SEQUENCE).exactly(count)


def _extensions(element: Element) -> dict[bytes, bytes]:
    (sequence,) = element.exactly(1)
    return _extensions_of(sequence)


def _extensions_of(sequence: Element) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for extension in sequence.children():
        parts = extension.children()
        if len(parts) not in {2, 3} or parts[0].raw in found:
            raise DerError("an extension stands twice, or is of another form")
        found[parts[0].raw] = der.expect(parts[-1], der.OCTET_STRING).content
    return found


def _bits(value: bytes | None) -> frozenset[int]:
    if value is None:
        return frozenset()
    content = der.decode(value, der.BIT_STRING).content[1:]
    return frozenset(8 * place + bit for place, byte in enumerate(content) for bit in range(8) if byte & (0x80 >> bit))


def _purposes(value: bytes | None) -> frozenset[bytes]:
    if value is None:
        return frozenset()
    return frozenset(each.raw for each in der.decode(value, der.SEQUENCE).children())


def _pem(raw: bytes, label: str) -> bytes:
    text = base64.b64encode(raw)
    lines = (text[at : at + 64] for at in range(0, len(text), 64))
    return b"\n".join((f"-----BEGIN {label}-----".encode(), *lines, f"-----END {label}-----\n".encode()))


def _blocks(pem: bytes, label: str) -> list[bytes]:
    found, at = [], 0
    while at < len(pem):
        block = _BLOCK.match(pem, at)
        if block is None or block.group(1) != label.encode():
            raise DerError(f"there is something else than blocks of '{label}'")
        try:
            found.append(base64.b64decode(block.group(2).translate(None, b"\r\n"), validate=True))
        except ValueError as wrong:
            raise DerError(f"a block of '{label}' is not in base64") from wrong
        at = block.end()
    return found
