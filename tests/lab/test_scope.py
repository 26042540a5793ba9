"""The scope guard: nothing is sent but inside the lab, to the topology, within the caps."""

from __future__ import annotations

import copy
import os
from ipaddress import ip_address

import pytest
from pyroute2 import IPRoute

from conformance.lab import Lab, Namespace
from conformance.lab.scope import Scope, ScopeError

_IPV4 = bytes(12) + b"\x08\x00" + bytes(16)
_IPV6 = bytes(12) + b"\x86\xdd" + bytes(24)


def frame(destination: str) -> bytes:
    """Return an Ethernet frame that holds an IP header with this destination."""
    address = ip_address(destination)
    return (_IPV4 if address.version == 4 else _IPV6) + address.packed


INSIDE = (frame("10.77.3.10"), frame("fd77:0:0:3::a"))


def test_frames_to_the_topology_pass_and_are_counted(lab: Lab) -> None:
    """Frames to addresses of segments are admitted, each against the cap."""
    scope = Scope(lab, packets=10)
    scope.admit_frames(lab.wire, INSIDE)
    assert scope.packets_left == 8


@pytest.mark.parametrize("destination", ["224.0.0.1", "255.255.255.255", "ff02::1", "192.0.2.1", "2001:db8::1"])
def test_addresses_that_are_nobodys_pass(lab: Lab, destination: str) -> None:
    """Multicast, broadcast and documentation addresses may be named by probes."""
    Scope(lab).admit_frames(lab.wire, [frame(destination)])


@pytest.mark.parametrize("destination", ["10.77.4.1", "1.1.1.1", "fd77:0:0:4::1", "2606:4700::1111"])
def test_a_foreign_destination_is_refused(lab: Lab, destination: str) -> None:
    """An address outside every segment is refused, in frames and in connections, and nothing is counted."""
    scope = Scope(lab, packets=10)
    with pytest.raises(ScopeError, match=f"{destination} lies outside the topology"):
        scope.admit_frames(lab.wire, [*INSIDE, frame(destination)])
    with pytest.raises(ScopeError, match=f"{destination} lies outside the topology"):
        scope.admit_connections(lab.namespace("alpha"), [ip_address(destination)])
    assert scope.packets_left == 10


def test_a_foreign_destination_behind_a_vlan_tag_is_refused(lab: Lab) -> None:
    """802.1Q and 802.1ad tags do not hide a destination."""
    plain = frame("1.1.1.1")
    tagged = plain[:12] + b"\x88\xa8\x00\x01\x81\x00\x00\x02" + plain[12:]
    with pytest.raises(ScopeError, match=r"1\.1\.1\.1"):
        Scope(lab).admit_frames(lab.wire, [tagged])


def test_an_arp_target_is_a_destination(lab: Lab) -> None:
    """ARP may ask for addresses of the topology only."""
    request = bytes(12) + b"\x08\x06" + bytes(24)
    Scope(lab).admit_frames(lab.wire, [request + ip_address("10.77.1.1").packed])
    with pytest.raises(ScopeError, match=r"8\.8\.8\.8"):
        Scope(lab).admit_frames(lab.wire, [request + ip_address("8.8.8.8").packed])


def test_frames_without_a_destination_pass(lab: Lab) -> None:
    """A frame cut short, or of a protocol without addresses, ends on its link."""
    Scope(lab).admit_frames(lab.wire, [b"", frame("1.1.1.1")[:-1], bytes(12) + b"\x88\xcc" + bytes(40)])


@pytest.mark.parametrize("process", ["1", "self"])
def test_the_machines_own_namespace_is_refused(lab: Lab, process: str) -> None:
    """A namespace that is PID 1's or this process's own is refused, whatever it calls itself."""
    try:
        descriptor = os.open(f"/proc/{process}/ns/net", os.O_RDONLY)
    except PermissionError:
        pytest.skip("this process lacks a capability that PID 1 has, so the kernel does not show PID 1's namespaces")
    forged = copy.copy(lab.namespace("alpha"))
    try:
        forged.fd = descriptor
        with pytest.raises(ScopeError, match=r"own|PID 1's"):
            Scope(lab).admit_frames(forged, INSIDE)
    finally:
        os.close(descriptor)


def test_a_namespace_of_no_lab_is_refused(lab: Lab) -> None:
    """A namespace that this lab did not make is refused even under a node's name."""
    stranger = Namespace("alpha", lab.reaper)
    try:
        with pytest.raises(ScopeError, match="not one of the lab"):
            Scope(lab).admit_frames(stranger, INSIDE)
    finally:
        stranger.close()


def test_a_foreign_device_is_refused(lab: Lab) -> None:
    """A device that the lab did not make, in a node or on the wire, stops everything sent from there."""
    for namespace in (lab.namespace("alpha"), lab.wire):
        namespace.call(lambda: change_link("add", ifname="uplink", kind="veth", peer="uplink0"))
        try:
            with pytest.raises(ScopeError, match="did not make: uplink, uplink0"):
                Scope(lab).admit_frames(namespace, INSIDE)
        finally:
            namespace.call(lambda: change_link("del", ifname="uplink"))
        Scope(lab).admit_frames(namespace, INSIDE)


def test_more_packets_than_the_cap_are_refused(lab: Lab) -> None:
    """A batch that would pass the cap is refused whole; one that fits the rest still passes."""
    scope = Scope(lab, packets=3)
    scope.admit_frames(lab.wire, INSIDE)
    with pytest.raises(ScopeError, match="2 packets are more than the 1"):
        scope.admit_frames(lab.wire, INSIDE)
    scope.admit_connections(lab.namespace("alpha"), [ip_address("10.77.3.10")])
    assert scope.packets_left == 0


def test_after_its_time_nothing_is_sent(lab: Lab) -> None:
    """When the time cap is over, every batch is refused."""
    now = [100.0]
    scope = Scope(lab, seconds=5, clock=lambda: now[0])
    scope.admit_frames(lab.wire, INSIDE)
    now[0] = 105.1
    with pytest.raises(ScopeError, match="time"):
        scope.admit_frames(lab.wire, INSIDE)


def change_link(action: str, **attributes: str) -> None:
    """Add or delete a device in the calling thread's namespace."""
    with IPRoute() as route:
        route.link(action, **attributes)
