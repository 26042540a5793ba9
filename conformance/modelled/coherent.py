"""Whether nft takes the parts of a rule together: it knows one network and one transport protocol for each rule."""

from __future__ import annotations

import re
from collections.abc import Sequence

_HEADER = re.compile(r"\b(icmpv6|icmp|tcp|udp|sctp|dccp|udplite) (?:type|code|sport|dport|flags|doff|option)\b")
_PROTOCOL = re.compile(r"\b(?:meta l4proto|ip protocol|ip6 nexthdr) (\S+)")
_NETWORK = re.compile(r"\b(ip|ip6) (?!to\b)[a-z]")
_SAID = {"tcp": "tcp", "udp": "udp", "icmp": "icmp", "ipv6-icmp": "icmpv6", "sctp": "sctp"}
_NUMBERS = {"1": "icmp", "6": "tcp", "17": "udp", "33": "dccp", "58": "icmpv6", "132": "sctp", "136": "udplite"}


def coherent(parts: Sequence[str], family: str) -> bool:
    """Tell whether nft takes the parts of a rule together in a table of a family."""
    text = " ".join(parts)
    if family != "inet" and "nfproto" in text:
        return False
    transports = set(_HEADER.findall(text))
    for said in _PROTOCOL.findall(text):
        if said not in {"!=", "<", "<=", ">", ">=", ".", "vmap", "map"}:
            transports.add(_SAID.get(said) or _NUMBERS.get(said) or "other")
    networks = set(_NETWORK.findall(text))
    networks |= {"ip" for each in transports if each == "icmp"} | {"ip6" for each in transports if each == "icmpv6"}
    networks |= {"ip" for _ in re.findall(r"nfproto ipv4", text)} | {"ip6" for _ in re.findall(r"nfproto ipv6", text)}
    networks |= {"ip6"} if "exthdr" in text else set()
    if "reject with tcp" in text:
        transports.add("tcp")
    networks |= {{"icmp": "ip", "icmpv6": "ip6"}[each] for each in re.findall(r"reject with (icmp|icmpv6) ", text)}
    if family != "inet":
        networks.add(family)
    return len(transports) <= 1 and len(networks) <= 1
