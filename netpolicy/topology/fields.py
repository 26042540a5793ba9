"""The values of the language: how each is written, and what is said when it is written wrongly."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, time
from difflib import get_close_matches
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from netpolicy.topology.model import DEFAULT_MTU, LEAST_MTU, Address, PortRange, Prefix, Weekday, Window
from netpolicy.topology.source import Filled, resolve

WRONG = "netpolicy"
"""The type of the pydantic errors raised here; their context holds what was `expected` and the `nearest` name."""

IDENTIFIER = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*\Z")
IDENTIFIER_LENGTH = 48
INTERFACE_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*\Z")
INTERFACE_NAME_LENGTH = 15
"""Bytes; Linux's IFNAMSIZ with its final zero is 16."""

FIRST_DAY, LAST_DAY = date(1971, 1, 1), date(2105, 12, 31)
"""Between them, in any time zone, a second since 1970 has a number of 32 bits without a sign: with that the proof
compares clocks, and so do many machines that read a certificate or a list."""
ALPN_LENGTH = 255
PROLOGUE_LENGTH = 16
_MAX_TEXT = 200
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}\Z")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?\Z", re.ASCII)
_RATE = re.compile(r"([1-9][0-9]{0,6})/second\Z", re.ASCII)
_WINDOW = re.compile(r"([A-Za-z,-]+) ([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})\Z", re.ASCII)
# The characters of RFC 3986, 2.2 and 2.3, and a '%' only before two hexadecimal digits (2.1).
_URI = re.compile(r"[a-z][a-z0-9+.-]*:(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2}){1,200}\Z")
# RFC 7301 allows 1 to 255 octets of any value; those of IANA's registry are written with these characters.
_ALPN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9./-]{0,253}[A-Za-z0-9])?\Z")
_PROLOGUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9./-]{0,15}\Z")
_DAYS = {day.name.title(): day for day in Weekday}
_UNUSABLE: tuple[Prefix, ...] = tuple(
    ip_network(text)
    # RFC 6890: this network, loopback, link-local, multicast, reserved; IPv4-mapped, unspecified and loopback of IPv6.
    for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
) + tuple(ip_network(text) for text in ("::/96", "::ffff:0:0/96", "fe80::/10", "ff00::/8"))


@dataclass(frozen=True, slots=True)
class Reference:
    """Metadata of a field: its values are ids of a section of the topology."""

    section: str


def wrong(message: str, expected: str, nearest: str | None = None) -> PydanticCustomError:
    """Return what a validator raises: one sentence, what would have been right, and the nearest valid name."""
    return PydanticCustomError(WRONG, "{message}", {"message": message, "expected": expected, "nearest": nearest})


def nearest_name(name: str, valid: list[str]) -> str | None:
    """Return the valid name that is most like `name`, None if none is."""
    return next(iter(get_close_matches(name, valid, 1)), None)


def shown(value: object) -> str:
    """Return a value for a message, as it would stand in the file, cut to a readable length."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"'{str(value).lower()}'"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(value))
    return f"'{text}'" if len(text) <= 60 else f"'{text[:57]}…'"


def _unfill(value: object) -> object:
    return resolve(value) if isinstance(value, Filled) else value


def _typed(kind: type, what: str, example: str = "") -> Callable[[object], object]:
    def check(value: object) -> object:
        value = _unfill(value)
        if type(value) is not kind:
            raise wrong(f"{shown(value)} is not {what}", what + example)
        return value

    return check


def _day(first: date) -> Callable[[object], date]:
    """Return the check of a day from `first` to :data:`LAST_DAY`."""
    typed = _typed(date, "a date", " such as 2026-11-01")

    def check(value: object) -> date:
        day = typed(value)
        assert isinstance(day, date)  # noqa: S101 - _typed sees to it
        if not first <= day <= LAST_DAY:
            raise wrong(f"{shown(value)} is no day that clocks are compared with", f"a day from {first} to {LAST_DAY}")
        return day

    return check


def _text_of(value: object, expected: str) -> str:
    if not isinstance(value, str):
        if isinstance(value, int | date):
            raise wrong(f"{shown(value)} is not text here", expected)
        raise wrong(f"{shown(value)} stands where {expected} should", expected)
    return value


def _text(value: object) -> str:
    text = _text_of(value, "text, in quotes if it looks like a number or a date")
    if not text.strip() or len(text) > _MAX_TEXT or not text.isprintable() or text != text.strip():
        raise wrong(f"{shown(text)} is not one line of text", f"1 to {_MAX_TEXT} printable characters in one line")
    return text


def _matching(pattern: re.Pattern[str], expected: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        text = _text_of(value, expected)
        if not pattern.match(text):
            raise wrong(f"{shown(text)} is not {expected}", expected)
        return str(text)

    return check


def _token(pattern: re.Pattern[str], what: str, expected: str, limit: int) -> Callable[[object], str]:
    """Return the check of a text of few characters, which proposes the nearest one that has no others."""

    def check(value: object) -> str:
        text = _text_of(value, expected)
        if not pattern.match(text):
            near = re.sub(r"[^A-Za-z0-9./-]+", "-", text).strip("-./")[:limit].rstrip("-./")
            raise wrong(f"{shown(text)} is not {what}", expected, near or None)
        return text

    return check


def identifier_error(text: str, pattern: re.Pattern[str], limit: int) -> str | None:
    """Return what an identifier must look like, None if it does."""
    if pattern.match(text) and len(text) <= limit:
        return None
    return f"a name of lower-case letters, digits and single hyphens that begins with a letter, at most {limit} long"


def _identifier(value: object) -> str:
    text = _text_of(value, "a name")
    expected = identifier_error(text, IDENTIFIER, IDENTIFIER_LENGTH)
    if expected is not None:
        raise wrong(f"{shown(text)} is not a name", expected)
    return str(text)


def _name(value: object) -> str:
    return str(_text_of(value, "a name"))


def _number(least: int, most: int) -> Callable[[object], int]:
    expected = f"a whole number from {least} to {most}"

    def check(value: object) -> int:
        value = _unfill(value)
        if type(value) is not int or not least <= value <= most:
            raise wrong(f"{shown(value)} is not {expected}", expected)
        return value

    return check


def _prefix(value: object) -> Prefix:
    expected = "an IPv4 or IPv6 prefix such as '10.13.0.0/24' or 'fd00:13::/64'"
    text = _text_of(value, expected)
    try:
        found = ip_network(text if "/" in text and "%" not in text else "", strict=False)
    except ValueError:
        raise wrong(f"{shown(text)} is not a prefix", expected) from None
    if ip_address(text.split("/")[0]) != found.network_address:
        raise wrong(f"{shown(text)} has bits set behind its length", f"'{found}'")
    if found.prefixlen == found.max_prefixlen:
        raise wrong(f"{shown(text)} has room for one address", "a segment's prefix, for two or more")
    for unusable in _UNUSABLE:
        if found.version == unusable.version and found.overlaps(unusable):
            raise wrong(f"{shown(text)} overlaps {unusable}, which is not for segments (RFC 6890)", expected)
    return found


def _address(value: object) -> Address:
    expected = "an IPv4 or IPv6 address such as '10.13.0.1' or 'fd00:13::1'"
    text = _text_of(value, expected)
    try:
        return ip_address(text if "%" not in text else "")  # no RFC 4007 zones
    except ValueError:
        raise wrong(f"{shown(text)} is not an address", expected) from None


def _mac(value: object) -> str:
    text = _matching(_MAC, "a MAC address such as '02:00:5e:00:53:01', in lower case")(value)
    if int(text[:2], 16) & 1 or text == "00:00:00:00:00:00":
        raise wrong(f"{shown(text)} is not the address of one interface", "a unicast MAC address (IEEE 802)")
    return text


def _port_range(value: object) -> PortRange:
    expected = "a port from 1 to 65535, or a range such as '17000-17010'"
    value = _unfill(value)
    match = _PORTS.match(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else None
    if match is None:
        raise wrong(f"{shown(value)} is not a port", expected)
    first = int(match[1])
    last = int(match[2]) if match[2] else first
    if not 1 <= first <= last <= 65535:
        raise wrong(f"{shown(value)} is not a port", expected)
    return PortRange(first, last)


def _rate(value: object) -> int:
    expected = "new connections per second, such as '50/second'"
    match = _RATE.match(_text_of(value, expected))
    if match is None:
        raise wrong(f"{shown(value)} is not a rate", expected)
    return int(match[1])


def _window(value: object) -> Window:
    expected = "days and hours such as 'Mon-Fri 08:30-17:15' or 'Sat,Sun 22:00-05:00'"
    match = _WINDOW.match(_text_of(value, expected))
    if match is None:
        raise wrong(f"{shown(value)} is not a time of the week", expected)
    begin_hour, begin_minute, end_hour, end_minute = (int(match[group]) for group in (2, 3, 4, 5))
    if (begin_hour, begin_minute) == (end_hour, end_minute):
        raise wrong(f"{shown(value)} ends when it begins", "another end; '00:00-24:00' is a whole day")
    if (end_hour, end_minute) == (24, 0):
        end_hour = 0
    try:
        start, end = time(begin_hour, begin_minute), time(end_hour, end_minute)
    except ValueError:
        raise wrong(f"{shown(value)} holds no time of the day", "hours from 00:00 to 24:00") from None
    return Window(_days(match[1]), start, end)


def _days(text: str) -> tuple[Weekday, ...]:
    found: set[Weekday] = set()
    for part in text.split(","):
        ends = part.split("-")
        for name in ends:
            if name not in _DAYS:
                raise wrong(f"'{name}' is not a day", ", ".join(_DAYS), nearest_name(name, list(_DAYS)))
        if len(ends) > 2:
            raise wrong(f"'{part}' is not a range of days", "one such as 'Mon-Fri'")
        first, last = _DAYS[ends[0]], _DAYS[ends[-1]]
        found.update(Weekday((first + step) % 7) for step in range((last - first) % 7 + 1))
    return tuple(sorted(found))


def _listed(value: object) -> object:
    """Take one value for a list of it."""
    if isinstance(value, list):
        if not value:
            raise wrong("the list is empty", "at least one entry, or no such key")
        return tuple(value)
    return (value,)


E_ = TypeVar("E_", bound=enum.Enum)


def choice(kind: type[E_]) -> BeforeValidator:
    """Return the validator of a field that holds one of the values of `kind`."""
    values = [str(member.value) for member in kind]

    def check(value: object) -> E_:
        if not isinstance(value, str) or value not in values:
            near = nearest_name(value, values) if isinstance(value, str) else None
            raise wrong(f"{shown(value)} is not one of the choices", " or ".join(f"'{each}'" for each in values), near)
        return kind(str(value))

    return BeforeValidator(check)


def _json(description: str, **schema: Any) -> WithJsonSchema:
    return WithJsonSchema({"description": description, **schema})


_TEXT_SCHEMA = {"type": "string", "minLength": 1, "maxLength": _MAX_TEXT}

Text = Annotated[str, BeforeValidator(_text), _json("one line of text", **_TEXT_SCHEMA)]
Identifier = Annotated[
    str,
    BeforeValidator(_identifier),
    _json("a name", type="string", pattern=f"^{IDENTIFIER.pattern[:-2]}$", maxLength=IDENTIFIER_LENGTH),
]
Name = Annotated[str, BeforeValidator(_name), _json("the name of another entry", type="string")]
Truth = Annotated[bool, BeforeValidator(_typed(bool, "true or false")), _json("true or false", type="boolean")]
Day = Annotated[
    date,
    BeforeValidator(_day(date(1800, 1, 1))),
    _json(f"a date, YYYY-MM-DD, until {LAST_DAY}", type="string", format="date"),
]
Today = Annotated[
    date,
    BeforeValidator(_day(FIRST_DAY)),
    _json(f"a date, YYYY-MM-DD, from {FIRST_DAY} to {LAST_DAY}", type="string", format="date"),
]
Cost = Annotated[
    int, BeforeValidator(_number(1, 1_000_000)), _json("a whole number", type="integer", minimum=1, maximum=1_000_000)
]
Count = Annotated[
    int, BeforeValidator(_number(1, 1_000_000)), _json("a whole number", type="integer", minimum=1, maximum=1_000_000)
]
Signatures = Annotated[int, BeforeValidator(_number(1, 2)), _json("1 or 2", type="integer", minimum=1, maximum=2)]
LinkMtu = Annotated[
    int,
    BeforeValidator(_number(LEAST_MTU[4], DEFAULT_MTU)),
    _json(
        "a number of bytes",
        type="integer",
        minimum=LEAST_MTU[4],
        maximum=DEFAULT_MTU,
    ),
]
NetworkPrefix = Annotated[
    IPv4Network | IPv6Network, BeforeValidator(_prefix), _json("an IPv4 or IPv6 prefix", type="string")
]
HostAddress = Annotated[
    IPv4Address | IPv6Address, BeforeValidator(_address), _json("an IPv4 or IPv6 address", type="string")
]
MacAddress = Annotated[
    str, BeforeValidator(_mac), _json("a unicast MAC address", type="string", pattern=f"^{_MAC.pattern[:-2]}$")
]
Ports = Annotated[
    PortRange,
    BeforeValidator(_port_range),
    _json(
        "a port, or a range such as '17000-17010'",
        anyOf=[
            {"type": "integer", "minimum": 1, "maximum": 65535},
            {"type": "string", "pattern": "^[0-9]{1,5}(-[0-9]{1,5})?$"},
        ],
    ),
]
Rate = Annotated[
    int,
    BeforeValidator(_rate),
    _json("new connections per second, such as '50/second'", type="string", pattern=f"^{_RATE.pattern[:-2]}$"),
]
Hours = Annotated[
    Window,
    BeforeValidator(_window),
    _json("days and hours such as 'Mon-Fri 08:30-17:15'", type="string", pattern=f"^{_WINDOW.pattern[:-2]}$"),
]
RoleUri = Annotated[
    str,
    BeforeValidator(_matching(_URI, "a URI such as 'urn:jukinet:communication-server:132021'")),
    _json("a URI (RFC 3986)", type="string", pattern=f"^{_URI.pattern[:-2]}$"),
]
Prologue = Annotated[
    str,
    BeforeValidator(
        _token(
            _PROLOGUE,
            "the beginning of what is said",
            "1 to 16 letters, digits, '.', '/' and '-', a letter or digit first, such as 'JUKI'",
            PROLOGUE_LENGTH,
        )
    ),
    _json(
        "1 to 16 letters, digits, `.`, `/` and `-`, a letter or digit first",
        type="string",
        pattern=f"^{_PROLOGUE.pattern[:-2]}$",
    ),
]
Alpn = Annotated[
    str,
    BeforeValidator(
        _token(
            _ALPN,
            "the name of a protocol (ALPN)",
            "1 to 255 letters, digits, '.', '/' and '-', a letter or digit at both ends, such as 'juki/1'",
            ALPN_LENGTH,
        )
    ),
    _json(
        "a name (RFC 7301) of 1 to 255 letters, digits, `.`, `/` and `-`, a letter or digit at both ends",
        type="string",
        pattern=f"^{_ALPN.pattern[:-2]}$",
    ),
]
Code = Annotated[
    str,
    BeforeValidator(
        _matching(re.compile(r"[0-9]{6}\Z", re.ASCII), "the six-digit code of a local government, in quotes")
    ),
    _json("six digits, the last of them the check digit", type="string", pattern="^[0-9]{6}$"),
]
LISTED = BeforeValidator(_listed)
"""One value, or a list of one or more."""
