"""The addresses that hosts have on a link beside those of the topology."""

from __future__ import annotations

from ipaddress import IPv6Address


def link_local(mac: str) -> IPv6Address:
    """Return the address that a host makes of its MAC address, modified EUI-64 (RFC 4291, 2.5.6 and appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes((octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]))
    return IPv6Address(b"\xfe\x80" + bytes(6) + identifier)
