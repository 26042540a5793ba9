"""Whether prefixes and addresses fit each other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network

from netpolicy.topology import schema
from netpolicy.topology.draft import Draft, Entry
from netpolicy.topology.fields import INTERFACE_NAME, INTERFACE_NAME_LENGTH, identifier_error, shown
from netpolicy.topology.findings import Findings, Spot
from netpolicy.topology.model import LEAST_MTU, Address, Prefix


@dataclass(frozen=True, slots=True)
class _Attachment:
    """An interface, its owner, and where it stands in the owner's entry."""

    owner: str
    entry: Entry[schema.NodeSpec] | Entry[schema.FirewallSpec]
    name: str
    interface: schema.NodeSpec | schema.InterfaceSpec
    location: tuple[str, ...]

    def at(self, *location: str | int) -> Spot:
        return self.entry.at(*self.location, *location)


def derived_mac(network: str, owner: str, interface: str) -> str:
    """Return a locally administered unicast MAC address (IEEE 802c) that depends on nothing but names."""
    digest = hashlib.sha256(f"{network}/{owner}/{interface}".encode()).hexdigest()
    return ":".join(["02", *(digest[at : at + 2] for at in range(0, 10, 2))])


def check_addressing(draft: Draft, findings: Findings) -> None:
    """Report prefixes that overlap and addresses that do not fit their segments."""
    _check_prefixes(draft, findings)
    taken: dict[tuple[str, Address | str], str] = {}
    network = draft.network.spec.id if draft.network else ""
    for found in _attachments(draft):
        _check_name(found, findings)
        segment = draft.of(schema.SegmentSpec).get(found.interface.segment)
        if segment is not None:
            _check_addresses(found, segment, findings)
            if isinstance(found.entry.spec, schema.FirewallSpec):
                _check_families(found, segment, findings)
        mac = found.interface.mac or derived_mac(network, found.entry.id, found.name)
        addresses = ((each, found.at("addresses", number)) for number, each in enumerate(found.interface.addresses))
        for key, spot in [*addresses, (mac, found.at("mac"))]:
            other = taken.setdefault((found.interface.segment, key), found.owner)
            if other != found.owner:
                message = f"{found.owner} and {other} both have '{key}' on segment '{found.interface.segment}'"
                findings.error(spot, message, "an address of its own for each")


_RESERVED_NAMES = frozenset({"lo", "all", "default"})
"""The loopback interface's, and those under which net.ipv4.conf and net.ipv6.conf keep what holds for every interface:
the kernel makes no device of that name (dev_valid_name() and sysctl registration)."""


def _attachments(draft: Draft) -> Iterator[_Attachment]:
    for firewall in draft.of(schema.FirewallSpec).values():
        for name, interface in firewall.spec.interfaces.items():
            owner = f"firewall '{firewall.id}'"
            yield _Attachment(owner, firewall, name, interface, ("interfaces", name))
    for node in draft.of(schema.NodeSpec).values():
        yield _Attachment(f"node '{node.id}'", node, node.spec.interface, node.spec, ())


def _check_name(found: _Attachment, findings: Findings) -> None:
    expected = identifier_error(found.name, INTERFACE_NAME, INTERFACE_NAME_LENGTH)
    if expected is None and found.name in _RESERVED_NAMES:
        expected = "another name: the kernel has a use of its own for it"
    if expected is not None:
        spot = found.at() if found.location else found.at("interface")
        findings.error(spot, f"{shown(found.name)} is not a name for an interface", expected)


def _check_prefixes(draft: Draft, findings: Findings) -> None:
    found: list[tuple[Prefix, Entry[schema.SegmentSpec], int]] = []
    for segment in draft.of(schema.SegmentSpec).values():
        families = [prefix.version for prefix in segment.spec.prefixes]
        least = max((LEAST_MTU[family] for family in families), default=0)
        if segment.spec.mtu < least:
            message = f"{segment.spec.mtu} is too small an MTU for segment '{segment.id}', where IPv6 is spoken"
            findings.error(segment.at("mtu"), message, f"at least {least}")
        for number, prefix in enumerate(segment.spec.prefixes):
            if prefix.version in families[:number]:
                spot = segment.at("prefixes", number)
                message = f"segment '{segment.id}' has a second IPv{prefix.version} prefix, '{prefix}'"
                findings.error(spot, message, "one of each family")
            else:
                found.append((prefix, segment, number))
    found.sort(key=lambda each: (each[0].version, int(each[0].network_address), each[0].prefixlen))
    widest: tuple[Prefix, Entry[schema.SegmentSpec]] | None = None
    for prefix, segment, number in found:
        if widest is not None and widest[0].version == prefix.version and widest[0].overlaps(prefix):
            message = f"prefix '{prefix}' of segment '{segment.id}' overlaps '{widest[0]}' of segment '{widest[1].id}'"
            findings.error(segment.at("prefixes", number), message, "prefixes that have no address in common")
        else:
            widest = (prefix, segment)


def _check_addresses(found: _Attachment, segment: Entry[schema.SegmentSpec], findings: Findings) -> None:
    families = [address.version for address in found.interface.addresses]
    for number, address in enumerate(found.interface.addresses):
        spot = found.at("addresses", number)
        if address.version in families[:number]:
            message = f"{found.owner} has a second IPv{address.version} address, '{address}'"
            findings.error(spot, message, "one of each family")
            continue
        prefix = next((each for each in segment.spec.prefixes if each.version == address.version), None)
        if prefix is None:
            message = f"segment '{segment.id}' has no IPv{address.version} prefix for address '{address}'"
            findings.error(spot, message, "an address in " + ", ".join(map(str, segment.spec.prefixes)))
        elif address not in prefix:
            message = f"address '{address}' of {found.owner} is outside of segment '{segment.id}'"
            findings.error(spot, message, f"an address in {prefix}")
        else:
            _check_host(address, prefix, spot, findings)


def _check_host(address: Address, prefix: Prefix, spot: Spot, findings: Findings) -> None:
    if prefix.num_addresses <= 2:
        return  # both are hosts: RFC 3021, RFC 6164
    expected = "the address of one host"
    if address == prefix.network_address:
        what = "network address" if prefix.version == 4 else "subnet-router anycast address (RFC 4291)"
        findings.error(spot, f"'{address}' is the {what} of {prefix}", expected)
    elif isinstance(prefix, IPv4Network) and address == prefix.broadcast_address:
        findings.error(spot, f"'{address}' is the broadcast address of {prefix}", expected)


def _check_families(found: _Attachment, segment: Entry[schema.SegmentSpec], findings: Findings) -> None:
    """Report families without an address: a firewall is everyone's gateway."""
    for prefix in segment.spec.prefixes:
        if all(address.version != prefix.version for address in found.interface.addresses):
            message = f"{found.owner} has no IPv{prefix.version} address on segment '{segment.id}'"
            findings.error(found.at("addresses"), message, f"an address in {prefix}")
