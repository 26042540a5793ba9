"""The left and right sides of nft's comparisons."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

from netpolicy.proof import fields
from netpolicy.proof.fields import STATES, Family, Field, bits_of
from netpolicy.proof.model import Element, Name, Span, Term, Value


class RefusedError(ValueError):
    """A ruleset has something that the proof does not know.

    Args:
        what: The expression, by nft's name.
        place: Where it stands.

    """

    def __init__(self, what: str, place: str) -> None:
        super().__init__(f"{place}: the proof does not know '{what}'" if place else f"the proof does not know '{what}'")
        self.what = what
        self.place = place

    def __reduce__(self) -> tuple[type[RefusedError], tuple[str, str]]:
        return RefusedError, (self.what, self.place)


_META = {
    "iifname": fields.IIF,
    "oifname": fields.OIF,
    "iif": fields.IIF,
    "oif": fields.OIF,
    "l4proto": fields.PROTOCOL,
    "nfproto": fields.NFPROTO,
    "mark": fields.MARK,
    "length": fields.LENGTH,
    "pkttype": fields.PACKET_TYPE,
    "day": fields.DAY,
    "hour": fields.HOUR,
    "time": fields.TIME,
}
_CT = {"state": fields.STATE, "direction": fields.DIRECTION, "zone": fields.ZONE, "mark": fields.CT_MARK}
_IP = {
    "saddr": fields.SADDR,
    "daddr": fields.DADDR,
    "protocol": fields.PROTOCOL,
    "ttl": fields.TTL,
    "hdrlength": fields.HEADER_LENGTH,
    "frag-off": fields.FRAG_OFF,
    "dscp": fields.DSCP,
    "ecn": fields.ECN,
    "length": fields.LENGTH,
}
_IP6 = {
    "saddr": fields.SADDR,
    "daddr": fields.DADDR,
    "nexthdr": fields.NEXT_HEADER,
    "hoplimit": fields.TTL,
    "dscp": fields.DSCP,
    "ecn": fields.ECN,
}
_PORTS = {"sport": fields.SPORT, "dport": fields.DPORT}
_TCP = {"flags": fields.TCP_FLAGS, "doff": fields.DATA_OFFSET}
_TRANSPORTS = {"tcp": 6, "udp": 17, "dccp": 33, "sctp": 132, "udplite": 136}
_FAST_OPEN = 34
_CONTROL = {"icmp": (fields.ICMP, Family.IPV4), "igmp": (2, Family.IPV4), "icmpv6": (fields.ICMPV6, Family.IPV6)}


def term_of(given: Any, place: str) -> Term:
    """Return what a rule reads.

    Raises:
        RefusedError: It is not known here.

    """
    if isinstance(given, dict) and len(given) == 1:
        ((kind, value),) = given.items()
        if kind == "&":
            return _masked(term_of(value[0], place), value[1], place)
        found = _READERS.get(kind, _nothing)(value)
        if found is not None:
            return found
        name = value.get("key", value.get("field", value.get("name", ""))) if isinstance(value, dict) else ""
        protocol = value.get("protocol", kind) if isinstance(value, dict) else kind
        raise RefusedError(f"{protocol} {name}".strip(), place)
    raise RefusedError(str(given), place)


def _masked(term: Term, given: Any, place: str) -> Term:
    if term.mask is not None or term.field in {fields.IIF, fields.OIF, fields.STATE}:
        raise RefusedError(f"{term.field} &", place)
    mask = int(ip_address(given)) if isinstance(given, str) else number(given)
    return Term(term.field, term.shift, mask, term.family, term.protocol, term.transport)


def _meta(given: dict[str, Any]) -> Term | None:
    field = _META.get(given["key"])
    return Term(field) if field else None


def _ct(given: dict[str, Any]) -> Term | None:
    field = _CT.get(given["key"])
    return Term(field) if field and set(given) == {"key"} else None


def _payload(given: dict[str, Any]) -> Term | None:
    protocol, name = given.get("protocol"), given.get("field", "")
    for layer, names, family in (("ip", _IP, Family.IPV4), ("ip6", _IP6, Family.IPV6)):
        if protocol == layer and name in names:
            return Term(names[name], family=family)
    if name in _PORTS and (protocol == "th" or protocol in _TRANSPORTS):
        return Term(_PORTS[name], protocol=_TRANSPORTS.get(protocol), transport=True)
    if protocol == "tcp" and name in _TCP:
        return Term(_TCP[name], protocol=fields.TCP, transport=True)
    if protocol in _CONTROL and name in {"type", "code", "mrt", "checksum"}:
        number, family = _CONTROL[protocol]
        if name == "checksum":  # nft's word for 'th dport' where the protocol is known
            return Term(fields.DPORT, family=family, protocol=number, transport=True)
        shift, mask = (8, None) if name == "type" else (0, 0xFF)
        return Term(fields.SPORT, shift, mask, family, number, transport=True)
    return None


def _exthdr(given: dict[str, Any]) -> Term | None:
    field = fields.EXTENSIONS.get(given["name"])
    return Term(field, family=Family.IPV6) if field and set(given) == {"name"} else None


def _tcp_option(given: dict[str, Any]) -> Term | None:
    """Return the presence of an option: of what is no TCP the kernel says that there is none."""
    if given == {"name": "fastopen"}:
        return Term(fields.TCP_OPTIONS[_FAST_OPEN])
    field = fields.TCP_OPTIONS.get(given.get("base", 0))
    return Term(field) if field and given == {"base": given["base"], "offset": 0, "len": 8} else None


def _socket(given: dict[str, Any]) -> Term | None:
    return Term(fields.TRANSPARENT) if given["key"] == "transparent" else None


def _nothing(_given: Any) -> Term | None:
    return None


_READERS: dict[str, Callable[[Any], Term | None]] = {
    "meta": _meta,
    "ct": _ct,
    "payload": _payload,
    "exthdr": _exthdr,
    "tcp option": _tcp_option,
    "socket": _socket,
}


def width(term: Term) -> int:
    """Return the bits of what a term gives; not for names."""
    family = term.family or Family.IPV6
    return bits_of(term.field, family) - term.shift


def value_of(term: Term, given: Any, place: str) -> Value:
    """Return a right side as the values of `term` that it stands for.

    Raises:
        RefusedError: It has a form that is not known here.

    """
    if isinstance(given, Span | Name):
        return given
    if term.field in {fields.IIF, fields.OIF}:
        if not isinstance(given, str):
            raise RefusedError(f"{term.field} {given}", place)
        return Name(given)
    if isinstance(given, dict) and "range" in given:
        first, last = (_point(term.field, each, place) for each in given["range"])
        return Span(first, last)
    if isinstance(given, dict) and "prefix" in given:
        first = _point(term.field, given["prefix"]["addr"], place)
        rest = (1 << (width(term) - int(given["prefix"]["len"]))) - 1
        return Span(first, first | rest)
    point = _point(term.field, given, place)
    return Span(point, point)


def reversed_span(term: Term, operator: str, bound: Value, place: str) -> Span:
    """Return the values for which a comparison with `bound` holds."""
    if not isinstance(bound, Span) or bound.first != bound.last:
        raise RefusedError(f"{term.field} {operator}", place)
    return {
        "<": Span(0, bound.first - 1),
        "<=": Span(0, bound.first),
        ">": Span(bound.first + 1, (1 << width(term)) - 1),
        ">=": Span(bound.first, (1 << width(term)) - 1),
    }[operator]


def state_elements(mask: int, *, exact: bool) -> Iterator[Element]:
    """Yield the states of a mask; compared exactly, a mask of several is none of them."""
    for index, state in enumerate(STATES):
        if mask == state if exact else mask & state:
            yield Element((Span(index, index),))


def number(given: Any) -> int:
    """Return a number, or several joined bit by bit.

    Raises:
        RefusedError: It is none.

    """
    if isinstance(given, bool | int):
        return int(given)
    if isinstance(given, dict) and set(given) == {"|"}:
        given = given["|"]
    if isinstance(given, list):
        found = 0
        for each in given:
            found |= number(each)
        return found
    raise RefusedError(str(given), "")


def _point(field: Field, given: Any, place: str) -> int:
    if field is fields.STATE:
        found = [index for index, state in enumerate(STATES) if state == given]
        if found:
            return found[0]
        raise RefusedError(f"ct state {given}", place)
    if isinstance(given, str):
        if field is fields.HOUR:
            hours, minutes, seconds = (*map(int, given.split(":")), 0)[:3]
            return hours * 3600 + minutes * 60 + seconds
        if field is fields.TIME:
            return int(datetime.fromisoformat(given).replace(tzinfo=UTC).timestamp())
        if field in {fields.SADDR, fields.DADDR}:
            return int(ip_address(given))
        raise RefusedError(f"{field} {given}", place)
    return number(given)
