"""What answers where: of all that listens on a firewall, only the relay, and only who is of its flow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6

from conformance.frames.conversation import tcp_packet
from conformance.lab import Lab, Namespace
from conformance.probe.wire import check_losses, packet_socket, received, send
from netpolicy.topology.model import Address
from tests.lab.small import PORT
from tests.relay.conftest import Living
from tests.waiting import until

_SYN, _SYN_ACK = 0x02, 0x12
_TCP, _ICMPV6, _NO_ERROR = 6, 58, 128
"""Protocols, and the first type of ICMPv6 that is no error (RFC 4443)."""
_CHUNK = 500
_PORTS = range(1, 1 << 16)
_FIRST = 40000
"""The source port of the first probe."""
_NOBODYS = tuple(ip_address(text) for text in ("127.0.0.1", "10.77.1.255", "255.255.255.255", "ff02::1"))
"""Addresses that a kernel might take for its own; ::1 from a wire it drops before any rule."""


@dataclass(frozen=True, slots=True)
class _Foothold:
    """Somebody who can send frames to an interface of a firewall."""

    namespace: Namespace
    device: str
    firewall: str
    interface: str
    addresses: tuple[Address, ...]
    """Of its own, one of each family."""


def _footholds(lab: Lab) -> dict[str, _Foothold]:
    """Return a permitted node, its neighbour, the server, either firewall as the other sees it, a box on the line."""
    found = {}
    for node, firewall in (("alpha", "edge"), ("beta", "edge"), ("gamma", "core")):
        addresses = lab.topology.nodes[node].interface.addresses
        found[node] = _Foothold(lab.namespace(node), "eth0", firewall, "lan", addresses)
    stranger = tuple(ip_address(text) for text in ("10.77.2.99", "fd77:0:0:2::99"))
    for here, there in (("edge", "core"), ("core", "edge")):
        own = next(each for each in lab.topology.firewalls[here].interfaces if each.name == "wan")
        port = lab.wire_port(there, "wan")
        found[f"{here}, fallen"] = _Foothold(lab.wire, port, there, "wan", own.addresses)
        found[f"a box, to {there}"] = _Foothold(lab.wire, port, there, "wan", stranger)
    return found


def _targets(lab: Lab) -> list[Address]:
    """Return every address of every firewall, those that are nobody's, and the server's."""
    firewalls = lab.topology.firewalls.values()
    own = [address for each in firewalls for interface in each.interfaces for address in interface.addresses]
    return [*own, *_NOBODYS, *lab.topology.nodes["gamma"].interface.addresses]


def _listening(lab: Lab) -> set[int]:
    """Return every port at which anything listens in a firewall's namespace."""
    found = {PORT}
    for firewall in lab.firewalls:
        done = lab.namespace(firewall).run(["ss", "-H", "-l", "-n", "-t", "-u"], timeout=5)
        assert done.returncode == 0, done.stderr
        found |= {int(line.split()[4].rpartition(":")[2]) for line in done.stdout.splitlines()}
    return found


def _datagram(source: Address, target: Address, ports: tuple[int, int]) -> bytes:
    kind = IP if source.version == 4 else IPv6
    return bytes(kind(src=str(source), dst=str(target)) / UDP(sport=ports[0], dport=ports[1]) / b"?")


def _probes(here: _Foothold, targets: Sequence[Address], ports: Sequence[int], *, udp: bool) -> Iterator[bytes]:
    """Yield a first segment, and a datagram, to each port of each target."""
    number = 0
    for target in targets:
        source = next(each for each in here.addresses if each.version == target.version)
        for port in ports:
            own = _FIRST + number % 20000
            number += 1
            yield tcp_packet(source, target, (own, port), (number, 0), b"", _SYN)
            if udp:
                yield _datagram(source, target, (own, port))


def _refused(lab: Lab, firewall: str) -> int:
    return sum(count for name, count in lab.counters(firewall).items() if name.startswith("deny_"))


def _answers(lab: Lab, here: _Foothold, packets: Sequence[bytes], passing: int = 0) -> list[tuple[Address, int, int]]:
    """Send packets to a firewall, see that it refuses all but so many, and return who answers: address, port, flags."""
    mac = next(each.mac for each in lab.topology.firewalls[here.firewall].interfaces if each.name == here.interface)
    own = bytes.fromhex("027700000099")
    before = _refused(lab, here.firewall)
    with ExitStack() as stack:
        wire = stack.enter_context(here.namespace.call(packet_socket(here.device)))
        found = []
        for begin in range(0, len(packets), _CHUNK):
            for packet in packets[begin : begin + _CHUNK]:
                kind = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
                send(wire, bytes.fromhex(mac.replace(":", "")) + own + kind + packet)
            found += list(received(wire))
        assert until(lambda: _refused(lab, here.firewall) - before >= len(packets) - passing), "not all have arrived"
        found += list(received(wire))
        check_losses([wire])
    return [answer for frame in found if (answer := _spoken(frame)) is not None]


def _spoken(frame: bytes) -> tuple[Address, int, int] | None:
    """Return address, port and flags of what a frame says over IP, None for what only finds neighbours."""
    if frame[12:14] == b"\x08\x00":
        source, kind, rest = ip_address(frame[26:30]), frame[23], frame[34:]
    elif frame[12:14] == b"\x86\xdd":
        source, kind, rest = ip_address(frame[22:38]), frame[20], frame[54:]
        if kind == 0 or (kind == _ICMPV6 and rest[0] >= _NO_ERROR):
            return None
    else:
        return None
    return (source, int.from_bytes(rest[:2], "big"), rest[13]) if kind == _TCP else (source, 0, kind)


def test_only_the_relay_answers_and_only_its_clients(living: Living) -> None:
    """Each foothold asks every port that listens anywhere, at every address; the declared flow alone is answered."""
    lab = living.lab
    targets, ports = _targets(lab), sorted(_listening(lab))
    assert len(ports) > 1
    gamma = lab.topology.nodes["gamma"].interface.addresses
    for name, here in _footholds(lab).items():
        packets = list(_probes(here, targets, ports, udp=True))
        permitted = len(gamma) if name == "alpha" else 0
        found = _answers(lab, here, packets, permitted)
        assert set(found) == ({(each, PORT, _SYN_ACK) for each in gamma} if permitted else set()), name


def test_no_port_of_a_firewall_answers(living: Living) -> None:
    """65,535 first segments to either address of an interface, from its segment: all are refused, none is answered."""
    here = _footholds(living.lab)["beta"]
    edge = living.lab.topology.firewalls["edge"].interfaces[0]
    packets = list(_probes(here, edge.addresses, _PORTS, udp=False))
    assert _answers(living.lab, here, packets) == []
