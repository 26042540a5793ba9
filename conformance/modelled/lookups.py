"""Concatenations, named sets and maps, verdict maps: several things looked up at once."""

from __future__ import annotations

from random import Random

from conformance.modelled.expressions import INTERFACES, V4, V6, Place

_PROTOCOLS = ("tcp", "udp", "icmp", "ipv6-icmp", "sctp")
_PORT_KEYS = ("22", "53", "80", "443", "1000-1999", "3128", "8000-8999", "40000")
_V4_KEYS = (*V4, "10.1.0.0/16", "192.168.0.0/20", "172.16.0.0-172.16.9.9")
_V6_KEYS = (*V6, "2001:db8:300::/40", "fd00::/16")
_PARTS = {
    "meta l4proto": (_PROTOCOLS, "inet_proto"),
    "th dport": (_PORT_KEYS, "inet_service"),
    "tcp dport": (_PORT_KEYS, "inet_service"),
    "udp sport": (_PORT_KEYS, "inet_service"),
    "ip saddr": (_V4_KEYS, "ipv4_addr"),
    "ip daddr": (_V4_KEYS, "ipv4_addr"),
    "ip6 saddr": (_V6_KEYS, "ipv6_addr"),
    "ip6 daddr": (_V6_KEYS, "ipv6_addr"),
    "iifname": (tuple(f'"{each}"' for each in INTERFACES), "ifname"),
    "oifname": (tuple(f'"{each}"' for each in INTERFACES), "ifname"),
    "meta mark": (("0", "1", "2", "0x100"), "mark"),
}
KEYS = (
    ("iifname", "oifname"),
    ("meta l4proto", "th dport"),
    ("ip saddr", "tcp dport"),
    ("ip6 daddr", "udp sport"),
    ("iifname", "ip saddr"),
    ("ip saddr", "ip daddr", "meta l4proto", "th dport"),
    ("ip6 saddr", "ip6 daddr", "meta l4proto", "th dport"),
    ("meta mark", "th dport"),
    ("ip saddr",),
    ("ip6 daddr",),
    ("tcp dport",),
    ("iifname",),
)
"""What is looked up together."""


def fits(key: tuple[str, ...], place: Place) -> bool:
    """Tell whether a key can be read in a table."""
    other = {"ip": "ip6 ", "ip6": "ip "}.get(place.family)
    return other is None or not any(part.startswith(other) for part in key)


def selector(key: tuple[str, ...]) -> str:
    """Return the left side."""
    return " . ".join(key)


def declared_type(key: tuple[str, ...]) -> str:
    """Return the type of a named set."""
    return " . ".join(_PARTS[part][1] for part in key)


def elements(random: Random, key: tuple[str, ...], count: int) -> list[str]:
    """Return elements none of which overlap: no two share the value of the first part that differs."""
    found: dict[str, str] = {}
    for _ in range(count):
        chosen = [random.choice(_PARTS[part][0]) for part in key]
        if key[0] in {"ip saddr", "ip daddr"}:
            chosen[0] = random.choice(V4)
        elif key[0] in {"ip6 saddr", "ip6 daddr"}:
            chosen[0] = random.choice(V6)
        found.setdefault(chosen[0], " . ".join(chosen))
    return list(found.values())


def intervals(random: Random, key: tuple[str, ...]) -> list[str]:
    """Return elements of one part with intervals that do not overlap."""
    several = {
        "ip saddr": ["10.0.0.0/15", "10.2.0.0/32", "10.3.0.0-10.3.255.255", "192.168.0.0/16", "8.8.8.8"],
        "ip6 daddr": ["2001:db8:100::/40", "2001:db8:200::1", "2001:db8:300::-2001:db8:3ff::", "fd00::/15"],
        "tcp dport": ["0-21", "22", "53-80", "443", "1024-8080", "65535"],
        "iifname": ['"lan*"', '"wan0"'],
    }[key[0]]
    return random.sample(several, k=random.randint(1, len(several)))
