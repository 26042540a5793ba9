"""Questions that a firewall answers itself on any interface, whatever its ruleset permits."""

from __future__ import annotations

from scapy.layers.inet6 import ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from netpolicy.topology.model import Address, Interface, Topology

_ASKER = "02:00:00:00:00:01"
_ARP, _IPV6 = b"\x08\x06", b"\x86\xdd"
_REPLY = b"\0\x02"
_HOP_BY_HOP, _ICMPV6 = 0, 58
_SOLICITATION, _ADVERTISEMENT, _LISTENER_REPORT = 135, 136, 143
_SHORTEST = 63


def question(interface: Interface, topology: Topology) -> bytes:
    """Return a question for an interface's address: ARP (RFC 826), or without IPv4 a solicitation (RFC 4861)."""
    address = interface.addresses[0]
    neighbour = asker(interface, address, topology)
    ether = Ether(src=_ASKER, dst=interface.mac)
    if address.version == 4:
        return bytes(ether / ARP(op=1, hwsrc=_ASKER, psrc=str(neighbour), pdst=str(address)))
    solicitation = ICMPv6ND_NS(tgt=str(address)) / ICMPv6NDOptSrcLLAddr(lladdr=_ASKER)
    return bytes(ether / IPv6(src=str(neighbour), dst=str(address), hlim=255) / solicitation)


def is_answer(frame: bytes) -> bool:
    """Tell whether a frame answers such a question."""
    return (frame[12:14] == _ARP and frame[20:22] == _REPLY) or _icmpv6_type(frame) == _ADVERTISEMENT


def is_discovery(frame: bytes) -> bool:
    """Tell whether a frame only asks for or tells a neighbour's address, or is a listener report (MLD)."""
    return frame[12:14] == _ARP or _icmpv6_type(frame) in {_SOLICITATION, _ADVERTISEMENT, _LISTENER_REPORT}


def _icmpv6_type(frame: bytes) -> int | None:
    if frame[12:14] != _IPV6 or len(frame) < _SHORTEST:
        return None
    if frame[20] == _HOP_BY_HOP and frame[54] == _ICMPV6:
        return frame[62]  # behind the router alert that every listener report carries (RFC 3810, 5)
    return frame[54] if frame[20] == _ICMPV6 else None


def asker(interface: Interface, address: Address, topology: Topology) -> Address:
    """Return the address of someone else on an interface's segment, or one next to the interface's own."""
    others = [node.interface for node in topology.nodes.values()]
    others.extend(each for firewall in topology.firewalls.values() for each in firewall.interfaces)
    for other in others:
        if other.segment == interface.segment and other is not interface:
            for each in other.addresses:
                if each.version == address.version:
                    return each
    return address + 1
