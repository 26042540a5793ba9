"""Every expression that the model knows, in random forms, as text for nft."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from random import Random

from conformance.modelled.plan import LISTENED

INTERFACES = ("lan0", "lan1", "wan0", "dmz0")
V4 = (
    "10.0.0.7",
    "10.1.2.3",
    "10.2.0.0",
    "10.3.255.255",
    "10.4.0.1",
    "192.168.1.20",
    "192.168.4.9",
    "172.16.9.9",
    "8.8.8.8",
)
V6 = ("2001:db8:100::7", "2001:db8:200::1", "2001:db8:301::", "2001:db8:400::1", "fd00::9", "fd04::1", "2606:4700::11")
_PORTS = (0, 1, 22, 25, 53, 80, 443, 1023, 1024, 5060, *LISTENED, 8080, 40000, 65535)
_PROTOCOLS = (1, 2, 6, 17, 33, 50, 58, 132, 136, 255)
_STATES = ("new", "established", "related", "invalid", "untracked")
_FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr")
_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")

Values = Callable[[Random], str]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rule stands."""

    family: str
    """Of its table."""
    hook: str | None
    """None in a chain that others jump to."""
    tracked: bool
    """Whether connections are known there, in all cases."""
    sets: Mapping[str, str] = field(default_factory=dict)
    """Named sets and maps of its table: what they are made for to their name."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A way to match."""

    name: str
    make: Callable[[Random, Place], str]
    family: str | None = None
    """Only in tables that see it."""
    hooks: frozenset[str] | None = None

    def fits(self, place: Place) -> bool:
        """Tell whether it can stand in a place."""
        if self.family is not None and place.family not in {"inet", self.family}:
            return False
        return self.hooks is None or place.hook in self.hooks


def _of(*values: object) -> Values:
    return lambda random: str(random.choice(values))


def _number(low: int, high: int, *known: int) -> Values:
    def chosen(random: Random) -> str:
        return str(random.choice(known) if known and random.random() < 0.8 else random.randint(low, high))

    return chosen


def _compare(
    selector: str, value: Values, bits: int, *, ordered: bool = True, masks: bool = True
) -> Callable[[Random, Place], str]:
    """Return a maker of all kinds of comparison with numbers."""
    kinds = ["is", "not", "set", "not set"]
    kinds += ["<", "<=", ">", ">=", "range", "not range", "interval set", "not interval set"] if ordered else []
    kinds += ["mask", "not mask"] if masks else []
    top = (1 << bits) - 1

    def made(random: Random, _place: Place) -> str:
        kind = random.choice(kinds)
        negated = "!= " if kind.startswith("not") else ""
        if kind in {"is", "not"}:
            return f"{selector} {negated}{value(random)}"
        if kind in {"set", "not set"}:
            several = sorted({value(random) for _ in range(random.randint(1, 4))})
            return f"{selector} {negated}{{ {', '.join(several)} }}"
        if kind in {"<", "<=", ">", ">="}:
            bound = min(max(1, int(value(random))), top - 1)
            return f"{selector} {kind} {bound}"
        if kind.endswith("mask"):
            mask = random.choice([1, top, top >> 1, 1 << (bits - 1), 3, random.randint(1, top)]) & top
            return f"{selector} & {mask} {'!=' if negated else '=='} {int(value(random)) & mask & top}"
        first, last = _span(random, value)
        if kind.endswith("range"):
            return f"{selector} {negated}{first}-{last}"
        other = int(value(random))
        single = [] if first <= other <= last else [str(other)]
        return f"{selector} {negated}{{ {', '.join([f'{first}-{last}', *single])} }}"

    return made


def _span(random: Random, value: Values) -> tuple[int, int]:
    ends = sorted({int(value(random)) for _ in range(2)})
    return (ends[0], ends[1]) if len(ends) == 2 else (max(0, ends[0] - 1), max(1, ends[0]))


def _addresses(
    selector: str, known: tuple[str, ...], lengths: tuple[int, ...], masks: tuple[tuple[str, str], ...]
) -> Callable[[Random, Place], str]:
    def made(random: Random, place: Place) -> str:
        one, length = random.choice(known), random.choice(lengths)
        two = random.choice(known)
        negated = random.choice(["", "", "!= "])
        kind = random.choice(["one", "prefix", "set", "interval", "mask", "named", "range"])
        ends = sorted((one, two), key=_packed)
        if kind == "named" and selector in place.sets:
            return f"{selector} {negated}@{place.sets[selector]}"
        if kind == "set":
            return f"{selector} {negated}{{ {', '.join(sorted({one, two}))} }}"
        if kind == "mask":
            mask, value = random.choice(masks)
            return f"{selector} & {mask} {'!=' if negated else '=='} {value}"
        if ends[0] != ends[1] and kind == "range":
            return f"{selector} {negated}{ends[0]}-{ends[1]}"
        single = {"interval": f"{{ {one}/{length} }}", "prefix": f"{one}/{length}"}.get(kind, one)
        return f"{selector} {negated}{single}"

    return made


def _packed(address: str) -> tuple[int, bytes]:
    return ip_address(address).version, ip_address(address).packed


def _names(selector: str) -> Callable[[Random, Place], str]:
    def made(random: Random, _place: Place) -> str:
        negated = random.choice(["", "", "!= "])
        if selector in {"iif", "oif"}:
            several = sorted(set(random.choices(INTERFACES, k=2)))
        else:
            several = sorted(set(random.choices([*INTERFACES, "lan*", "w*", "none0"], k=2)))
        quoted = [f'"{each}"' for each in several]
        if random.random() < 0.4 and not ("lan*" in several and {"lan0", "lan1"} & set(several)):
            return f"{selector} {negated}{{ {', '.join(quoted)} }}"
        return f"{selector} {negated}{quoted[0]}"

    return made


def _state(random: Random, _place: Place) -> str:
    several = sorted(set(random.choices(_STATES, k=random.randint(1, 3))))
    listed = ",".join(several)
    return "ct state " + random.choice(
        [
            listed,
            several[0],
            f"!= {several[0]}",
            f"! {several[0]}",
            f"{{ {', '.join(several)} }}",
            f"!= {{ {', '.join(several)} }}",
            f"== {several[0]}",
            f"!= {listed}",
            f"! {listed}",
        ]
    )


def _flags(random: Random, _place: Place) -> str:
    several = sorted(set(random.choices(_FLAGS, k=random.randint(1, 3))), key=_FLAGS.index)
    mask = sorted({*several, *random.choices(_FLAGS, k=2)}, key=_FLAGS.index)
    joined = "(" + "|".join(mask) + ")"
    return "tcp flags " + random.choice(
        [
            ",".join(several),
            f"== {several[0]}",
            f"!= {several[0]}",
            f"! {','.join(several)}",
            f"& {joined} == {'|'.join(several)}",
            f"& {joined} != {'|'.join(several)}",
            f"& {joined} != 0",
            f"& {joined} == 0",
            f"{','.join(several)} / {','.join(mask)}",
            f"{{ {', '.join(several)} }}",
            f"!= {{ {', '.join(several)} }}",
            f">= {random.choice([1, 2, 16, 18])}",
            f"< {random.choice([2, 16, 18])}",
            f"{{ {several[0]}, {several[0]} | {_FLAGS[(_FLAGS.index(several[0]) + 1) % 8]} }}",
        ]
    )


def _day(random: Random, _place: Place) -> str:
    several = sorted(set(random.choices(_DAYS, k=random.randint(1, 5))), key=_DAYS.index)
    quoted = [f'"{each}"' for each in several]
    return random.choice(
        [
            f"meta day {quoted[0]}",
            f"meta day != {quoted[0]}",
            f"meta day {{ {', '.join(quoted)} }}",
            f"meta day != {{ {', '.join(quoted)} }}",
        ]
    )


def _hour(random: Random, _place: Place) -> str:
    """Return hours that now is surely in or out of: an hour from their ends."""
    now = datetime.now(UTC)
    ends = sorted({(now + timedelta(hours=random.choice([-9, -5, -2, 2, 5, 9]))).strftime("%H:%M") for _ in range(2)})
    bound = random.choice([each for each in ends if each > "00:00"] or ["12:00"])
    forms = [f'meta hour < "{bound}"', f'meta hour >= "{bound}"']
    if len(ends) == 2:
        forms += [f'meta hour "{ends[0]}"-"{ends[1]}"', f'meta hour != "{ends[0]}"-"{ends[1]}"']
    return random.choice(forms)


def _time(random: Random, _place: Place) -> str:
    first, last = random.choice(
        [("2025-01-01", "2026-01-01"), ("2025-06-01", "2037-01-01"), ("2036-01-01", "2037-06-01")]
    )
    a, b = (f'"{each} 00:00:00"' for each in (first, last))
    return random.choice(
        [
            f"meta time {a}-{b}",
            f"meta time != {a}-{b}",
            f"meta time < {b}",
            f"meta time >= {a}",
            f"meta time <= {a}",
            f"meta time > {b}",
        ]
    )


def _ports(selector: str, *before: str) -> Callable[[Random, Place], str]:
    compare = _compare(selector, _number(0, 65535, *_PORTS), 16)

    def made(random: Random, place: Place) -> str:
        lead = random.choice(before) + " " if before else ""
        if lead.startswith("ip ") and place.family == "ip6":
            lead = "meta l4proto tcp "
        if lead.startswith(("ip6 ", "meta nfproto ipv6")) and place.family == "ip":
            lead = "meta l4proto udp "
        if selector in place.sets and random.random() < 0.2:
            return f"{lead}{selector} @{place.sets[selector]}"
        return lead + compare(random, place)

    return made


def _extension(random: Random, _place: Place) -> str:
    return f"exthdr {random.choice(['hbh', 'rt', 'frag', 'dst'])} {random.choice(['exists', 'missing'])}"


def _option(random: Random, _place: Place) -> str:
    return f"tcp option {random.choice(['fastopen', '254'])} {random.choice(['exists', 'missing'])}"


def _transparent(random: Random, _place: Place) -> str:
    return random.choice(["socket transparent 1", "socket transparent 1", "socket transparent != 0"])


def _type(protocol: str, types: tuple[int, ...]) -> Callable[[Random, Place], str]:
    compare = _compare(f"{protocol} type", _number(0, 255, *types), 8, masks=False)
    family, l4 = ("ipv4", "icmp") if protocol == "icmp" else ("ipv6", "ipv6-icmp")

    def made(random: Random, place: Place) -> str:
        lead = random.choice(
            [
                "",
                "",
                f"meta l4proto {l4} ",
                f"meta nfproto {family} meta l4proto {l4} ",
                f"ip protocol {l4} " if protocol == "icmp" else "",
            ]
        )
        return lead + compare(random, place)

    return made


def expressions() -> tuple[Expression, ...]:
    """Return all of them."""
    return (*_known(), *_headers(), *_transports(), *_addressed(), *_classes())


def _known() -> Iterator[Expression]:
    """Yield what the kernel knows of a packet."""
    mark = _number(0, 0xFFFFFFFF, 0, 1, 2, 3, 0x100, 0x101, 0xFF00)
    for each in ("iifname", "oifname", "iif", "oif"):
        yield Expression(f"meta {each}", _names(each))
    yield Expression("meta l4proto", _compare("meta l4proto", _number(0, 255, *_PROTOCOLS), 8, masks=False))
    yield Expression("meta nfproto", _either("meta nfproto", "ipv4", "ipv6"), "inet")
    yield Expression("meta mark", _compare("meta mark", mark, 32))
    yield Expression("meta length", _compare("meta length", _number(28, 1500, 48, 60, 61, 100, 576, 1500), 32))
    kinds = _of("host", "broadcast", "multicast")
    yield Expression("meta pkttype", _compare("meta pkttype", kinds, 3, ordered=False, masks=False))
    yield Expression("meta day", _day)
    yield Expression("meta hour", _hour)
    yield Expression("meta time", _time)
    yield Expression("ct state", _state)
    yield Expression("ct direction", _either("ct direction", "original", "reply"))
    yield Expression("ct zone", _compare("ct zone", _number(0, 65535, 0, 1, 7), 16, masks=False))
    yield Expression("ct mark", _compare("ct mark", mark, 32))


def _either(selector: str, one: str, other: str) -> Callable[[Random, Place], str]:
    return lambda random, _: f"{selector} {random.choice(['', '!= '])}{random.choice([one, other])}"


def _headers() -> Iterator[Expression]:
    """Yield numbers of network headers."""
    hops = _number(0, 255, 1, 2, 63, 64, 254, 255)
    next_headers = _number(0, 255, 0, 6, 17, 43, 44, 58, 60)
    fragments = _number(0, 65535, 0, 1, 0x2000, 0x1FFF, 0x4000)
    yield Expression("ip protocol", _compare("ip protocol", _number(0, 255, *_PROTOCOLS), 8, masks=False), "ip")
    yield Expression("ip ttl", _compare("ip ttl", hops, 8, masks=False), "ip")
    yield Expression("ip hdrlength", _compare("ip hdrlength", _number(5, 15, 5, 6, 15), 4, masks=False), "ip")
    yield Expression("ip frag-off", _compare("ip frag-off", fragments, 16), "ip")
    yield Expression("ip length", _compare("ip length", _number(28, 1500, 48, 60, 61, 100, 576), 16), "ip")
    yield Expression("ip6 nexthdr", _compare("ip6 nexthdr", next_headers, 8, masks=False), "ip6")
    yield Expression("ip6 hoplimit", _compare("ip6 hoplimit", hops, 8, masks=False), "ip6")
    yield Expression("exthdr", _extension, "ip6")


def _transports() -> Iterator[Expression]:
    """Yield what is read from transport headers."""
    both, codes = "meta l4proto { tcp, udp }", _number(0, 255, 0, 1, 4)
    yield Expression("tcp flags", _flags)
    yield Expression("tcp doff", _compare("tcp doff", _number(0, 15, 4, 5, 6, 10, 15), 4, masks=False))
    yield Expression("tcp option", _option)
    yield Expression("icmp type", _type("icmp", (0, 3, 5, 8, 11, 13)), "ip")
    yield Expression("icmp code", _compare("icmp code", codes, 8, masks=False), "ip")
    yield Expression("icmpv6 type", _type("icmpv6", (1, 2, 128, 129, 133, 135, 136, 137)), "ip6")
    yield Expression("icmpv6 code", _compare("icmpv6 code", codes, 8, masks=False), "ip6")
    yield Expression("socket transparent", _transparent, hooks=frozenset({"prerouting", "input"}))
    yield Expression("th sport", _ports("th sport", both, "meta l4proto icmp", "meta l4proto tcp", ""))
    leads = (both, "meta l4proto != tcp", "ip protocol tcp", "meta l4proto sctp", "")
    yield Expression("th dport", _ports("th dport", *leads))
    yield Expression("tcp sport", _ports("tcp sport"))
    leads = ("", "", "ip protocol tcp", "ip6 nexthdr tcp", "meta l4proto tcp")
    yield Expression("tcp dport", _ports("tcp dport", *leads))
    yield Expression("udp sport", _ports("udp sport", "", "ip protocol udp"))
    yield Expression("udp dport", _ports("udp dport", "", "", "ip6 nexthdr udp"))
    for protocol in ("sctp", "dccp", "udplite"):
        for end in ("sport", "dport"):
            yield Expression(f"{protocol} {end}", _ports(f"{protocol} {end}"))


def _addressed() -> Iterator[Expression]:
    """Yield addresses."""
    masks4 = (("0.0.0.255", "0.0.0.7"), ("255.0.0.0", "10.0.0.0"), ("255.255.0.255", "10.1.0.3"))
    masks6 = (("::ffff", "::7"), ("ffff::", "fd00::"), ("ffff:ffff::ffff", "2001:db8::1"))
    for end in ("saddr", "daddr"):
        yield Expression(f"ip {end}", _addresses(f"ip {end}", V4, (8, 15, 24, 31), masks4), "ip")
        yield Expression(f"ip6 {end}", _addresses(f"ip6 {end}", V6, (16, 40, 64, 127), masks6), "ip6")


def _classes() -> Iterator[Expression]:
    """Yield the parts of the traffic class."""
    for family in ("ip", "ip6"):
        dscp, ecn = f"{family} dscp", f"{family} ecn"
        yield Expression(dscp, _compare(dscp, _number(0, 63, 0, 8, 46, 63), 6, masks=False), family)
        yield Expression(ecn, _compare(ecn, _number(0, 3), 2, masks=False, ordered=False), family)
