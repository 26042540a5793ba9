"""DER (X.690, 10), as much of it as certificates, revocation lists and signatures take to be looked into.

Nothing here judges a signature: ``openssl`` does. What does not have exactly one reading is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
UTC_TIME, GENERALIZED_TIME = 0x17, 0x18
SEQUENCE, SET = 0x30, 0x31
_LONG_FORM, _LENGTH_BYTES = 0x80, 4


def context(number: int) -> int:
    """Return the tag of a constructed, context-specific element."""
    return 0xA0 + number


class DerError(ValueError):
    """It is not DER, or not of the form that was expected."""


@dataclass(frozen=True, slots=True)
class Element:
    """A tag and what it holds."""

    tag: int
    content: bytes
    raw: bytes
    """With tag and length."""

    def children(self) -> list[Element]:
        """Return the elements that it holds."""
        found, at = [], 0
        while at < len(self.content):
            element = _element(self.content, at)
            found.append(element)
            at += len(element.raw)
        return found

    def exactly(self, count: int) -> list[Element]:
        """Return the elements that it holds, which are so many."""
        found = self.children()
        if len(found) != count:
            raise DerError(f"an element holds {len(found)} others, and {count} were expected")
        return found


def decode(data: bytes, tag: int) -> Element:
    """Return the one element that `data` is.

    Raises:
        DerError: It is not one, or has another tag.

    """
    return expect(_whole(data), tag)


def expect(element: Element, tag: int) -> Element:
    """Return the element if it has this tag."""
    if element.tag != tag:
        raise DerError(f"an element has tag {element.tag:#04x}, and {tag:#04x} was expected")
    return element


def encode(tag: int, *contents: bytes) -> bytes:
    """Return an element's bytes."""
    content = b"".join(contents)
    if len(content) < _LONG_FORM:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, _LONG_FORM + len(length)]) + length + content


def encode_set(elements: Iterable[bytes], tag: int = SET) -> bytes:
    """Return a SET OF, whose elements stand in the order of their bytes (X.690, 11.6), each once."""
    return encode(tag, *sorted(set(elements)))


def encode_oid(name: str) -> bytes:
    """Return the element of an object identifier in dotted form."""
    first, second, *rest = (int(arc) for arc in name.split("."))
    out = b""
    for arc in (first * 40 + second, *rest):
        digits = [arc & 0x7F]
        while arc := arc >> 7:
            digits.append(0x80 | arc & 0x7F)
        out += bytes(reversed(digits))
    return encode(OID, out)


def integer(element: Element) -> int:
    """Return a whole number."""
    return int.from_bytes(expect(element, INTEGER).content, "big", signed=True)


def time(element: Element) -> datetime:
    """Return a time of a certificate or a list (RFC 5280, 4.1.2.5)."""
    text = element.content.decode("ascii", "replace")
    try:
        if element.tag == UTC_TIME:
            century = "20" if text[:2] < "50" else "19"
            return datetime.strptime(century + text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
        if element.tag == GENERALIZED_TIME:
            return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    except ValueError as wrong:
        raise DerError(f"'{text}' is no time") from wrong
    raise DerError(f"an element has tag {element.tag:#04x}, and a time was expected")


def _whole(data: bytes) -> Element:
    element = _element(data, 0)
    if len(element.raw) != len(data):
        raise DerError("something follows the element")
    return element


def _element(data: bytes, at: int) -> Element:
    header = data[at : at + 2]
    if len(header) < 2 or header[0] & 0x1F == 0x1F:
        raise DerError("an element is cut off, or has a tag of many bytes")
    length, begin = header[1], at + 2
    if length >= _LONG_FORM:
        count = length - _LONG_FORM
        digits = data[begin : begin + count]
        if not 0 < count <= _LENGTH_BYTES or len(digits) < count or digits[0] == 0:
            raise DerError("a length is cut off, or not in its shortest form")
        length, begin = int.from_bytes(digits, "big"), begin + count
        if length < _LONG_FORM:
            raise DerError("a length is not in its shortest form")
    if begin + length > len(data):
        raise DerError("an element is cut off")
    return Element(header[0], data[begin : begin + length], data[at : begin + length])
