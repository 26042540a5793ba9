"""What attackers send: forged sources, fragments, options, extension headers, odd flags, forged errors."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from conformance.expect import Expectation, Permitted, nobody
from conformance.probe.batch import Probe
from conformance.probe.shape import Shape, exists
from netpolicy.topology.model import Address, Firewall, Interface, Segment

STAGE = "attack"

_PORT = 80
_FOREIGN: dict[int, tuple[str, ...]] = {
    4: ("198.51.100.7", "8.8.8.8", "127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.5"),  # noqa: S104 - no socket
    # No ::1 and no multicast: IPv6 itself drops such sources, before any hook (RFC 4291).
    6: ("2001:db8:dead::7", "2001:4860:4860::8888", "::", "fe80::7"),
}
_UNKNOWN = {4: ("198.51.100.7", "224.0.0.5", "255.255.255.255"), 6: ("2001:db8:dead::7", "ff02::5", "ff02::1")}
_CROSSING = [
    shape
    for shape in Shape
    if shape not in {Shape.SYN, Shape.UDP, Shape.ECHO, Shape.ROUTER_ADVERTISEMENT, Shape.NEIGHBOUR_ADVERTISEMENT}
]


def attack(expectation: Expectation, firewall: Firewall) -> Iterator[Probe]:
    """Yield the attacks on a firewall, from each interface, with ends that would otherwise be well placed."""
    for interface in firewall.interfaces:
        segment = expectation.topology.segments[interface.segment]
        for family in sorted({address.version for address in interface.addresses}):
            source = _resident(expectation, firewall, interface, family)
            for beyond in firewall.interfaces:
                if beyond is interface:
                    continue
                target = _resident(expectation, firewall, beyond, family)
                if source is not None and target is not None:
                    yield from _shaped(expectation, firewall, interface, source, target)
                    yield from _forged(expectation, firewall, interface, segment, target)
            if source is not None:
                yield from _at_itself(firewall, interface, source)
                yield from _nowhere(expectation, firewall, interface, source)


def _shaped(
    expectation: Expectation, firewall: Firewall, interface: Interface, source: Address, target: Address
) -> Iterator[Probe]:
    """Yield odd shapes between ends that a flow joins, where one does, so that only the shape is wrong."""
    pairs = {(source, target, _PORT, None)}
    for permitted in expectation.permits[firewall.id]:
        ingress, egress, a, b = permitted.ends
        if ingress == interface.name and egress is not None and a.version == source.version:
            pairs.add((a, b, permitted.ports[0].first, permitted.flow.id))  # type: ignore[arg-type]
    for a, b, port, flow in sorted(pairs, key=str):
        for shape in _CROSSING:
            if exists(shape, a.version):
                label = f"{shape} port {port}"
                yield Probe(STAGE, str(a), str(b), label, shape, interface.name, a, b, port, flow)


def _forged(
    expectation: Expectation, firewall: Firewall, interface: Interface, segment: Segment, target: Address
) -> Iterator[Probe]:
    """Yield sources that cannot come in by this interface, towards what a flow may reach where there is one."""
    family = target.version
    forged: list[Address] = [ip_address(each) for each in _FOREIGN[family]]
    for other in firewall.interfaces:
        forged.extend(each for each in other.addresses if each.version == family)
        if other is not interface:
            resident = _resident(expectation, firewall, other, family)
            if resident is not None:
                forged.append(resident)
    forged.extend(each for each in nobody(segment) if each.version == family)
    forged.extend(_edges(expectation, family))
    port, about = _PORT, None
    for permitted in _flows_at(expectation, firewall, interface):
        about = permitted.flow.id
        if permitted.ends[1] is not None and permitted.ends[3].version == family:
            target, port = permitted.ends[3], permitted.ports[0].first
            break
    for each in forged:
        label = f"forged source {each} through {interface.name}"
        yield Probe(STAGE, str(each), str(target), label, Shape.SYN, interface.name, each, target, port, about)


def _flows_at(expectation: Expectation, firewall: Firewall, interface: Interface) -> list[Permitted]:
    """Return the permits of a firewall, those that begin at an interface first."""
    return sorted(expectation.permits[firewall.id], key=lambda each: each.ends[0] != interface.name)


def _edges(expectation: Expectation, family: int) -> Iterator[Address]:
    """Yield the addresses just outside of every prefix of the network."""
    for segment in expectation.topology.segments.values():
        for prefix in segment.prefixes:
            if prefix.version == family:
                yield prefix.network_address - 1
                yield prefix.broadcast_address + 1


def _at_itself(firewall: Firewall, interface: Interface, source: Address) -> Iterator[Probe]:
    """Yield what a neighbour could try on the firewall itself."""
    for address in interface.addresses:
        for shape in Shape:
            if address.version == source.version and exists(shape, address.version):
                label = f"{shape} to the firewall"
                yield Probe(STAGE, str(source), firewall.id, label, shape, interface.name, source, address, _PORT)


def _nowhere(expectation: Expectation, firewall: Firewall, interface: Interface, source: Address) -> Iterator[Probe]:
    """Yield destinations that are nobody: unknown networks, multicast, broadcast."""
    segment = expectation.topology.segments[interface.segment]
    targets = [ip_address(each) for each in _UNKNOWN[source.version]]
    targets.extend(each for each in nobody(segment) if each.version == source.version)
    about = next((each.flow.id for each in _flows_at(expectation, firewall, interface)), None)
    for each in targets:
        label = f"destination {each}"
        yield Probe(STAGE, str(source), str(each), label, Shape.UDP, interface.name, source, each, _PORT, about)


def _resident(expectation: Expectation, firewall: Firewall, interface: Interface, family: int) -> Address | None:
    """Return an address that lives behind an interface: of a node, or of another firewall."""
    routing = expectation.routing
    for node in expectation.topology.nodes.values():
        towards = routing.interface_towards(firewall, node.interface.segment)
        if towards is not None and towards.name == interface.name:
            for address in node.interface.addresses:
                if address.version == family:
                    return address
    return None
