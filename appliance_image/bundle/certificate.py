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
from netpolicy.pki.purpose import SIGNS_BUNDLES

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
_DIGITAL_SIGNATURE, _CERT_SIGN = 0, 5


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
    def signs_bundles(self) -> bool:
        """Whether it is for the signing of bundles, and says so."""
        purpose = der.encode_oid(SIGNS_BUNDLES)
        return not self.authority and _DIGITAL_SIGNATURE in self.usages and purpose in self.purposes

    def signer(self) -> Signer:
        """Return what is shown of it, and counted."""
        persons = [value for name, value in _attributes(self.subject) if name == _PERSON]
        return Signer(
            subject=name_text(self.subject),
            issuer=name_text(self.issuer),
            serial=self.serial,
            person=persons[0] if len(persons) == 1 and persons[0] else None,
            key_sha256=hashlib.sha256(self.key).hexdigest(),
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
    """Return a revocation list's fields.

    Raises:
        DerError: It is none of version 2.

    """
    body, *_ = _parts(raw, 3)
    fields = body.children()
    if len(fields) < 4 or fields[0].tag != der.INTEGER:
        raise DerError("a revocation list is not of version 2")
    ends = len(fields) > 4 and fields[4].tag in {der.UTC_TIME, der.GENERALIZED_TIME}
    extensions = _extensions(fields[-1]) if fields[-1].tag == der.context(0) else {}
    number = extensions.get(_CRL_NUMBER)
    return RevocationList(
        raw=raw,
        issuer=der.expect(fields[2], der.SEQUENCE),
        number=None if number is None else der.integer(der.decode(number, der.INTEGER)),
        this_update=der.time(fields[3]),
        next_update=der.time(fields[4]) if ends else None,
    )


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


def _attributes(name: Element) -> Iterator[tuple[bytes, str]]:
    for relative in name.children():
        for attribute in der.expect(relative, der.SET).children():
            kind, value = attribute.exactly(2)
            yield kind.raw, value.content.decode("utf-16-be" if value.tag == 0x1E else "utf-8", "replace")


def _parts(raw: bytes, count: int) -> list[Element]:
    return der.decode(raw, der.SEQUENCE).exactly(count)


def _extensions(element: Element) -> dict[bytes, bytes]:
    (sequence,) = element.exactly(1)
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
