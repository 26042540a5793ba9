"""What a line carries: no byte beside a connection's own, and every byte of that, whatever its MTU is."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6Unknown, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from conformance.lab import Lab
from netpolicy.build import compile_topology
from netpolicy.topology.model import Topology
from tests.lab.small import PORT, small_topology
from tests.lab.test_lab import listening, packet_socket

_ENDS = {4: ("10.77.1.10", "10.77.3.10"), 6: ("fd77:0:0:1::a", "fd77:0:0:3::a")}
_STRANGERS = {4: ("10.77.1.77", "10.77.3.77"), 6: ("fd77:0:0:1::77", "fd77:0:0:3::77")}
_PATH = {4: ("10.77.1.1", "10.77.3.1"), 6: ("fd77:0:0:1::1", "fd77:0:0:3::1")}
_MARKER = b"by a letter that nobody reads "
_BULK = 400_000
_LINE = 1280
_ERRORS = {
    4: [(3, code) for code in range(16)] + [(4, 0), *((5, code) for code in range(4)), (11, 0), (11, 1), (12, 0)],
    6: [
        *((1, code) for code in range(8)),
        (2, 0),
        (3, 0),
        (3, 1),
        (4, 0),
        (4, 1),
        (4, 2),
        (100, 0),
        (127, 0),
        (137, 0),
    ],
}
"""RFC 792, RFC 1122, RFC 1812; RFC 4443, RFC 4861."""
_SIDES = (("alpha", "edge", "core"), ("gamma", "core", "edge"))
"""Who sends, the firewall before it, and the one at the far end; each by its interface ``lan``."""


@contextmanager
def _connected(lab: Lab, family: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield both ends of a permitted connection."""
    address = _ENDS[family][1]
    with (
        listening(lab, "gamma", address, PORT) as server,
        lab.namespace("alpha").call(lambda: socket.create_connection((address, PORT), timeout=5)) as client,
        server.accept()[0] as accepted,
    ):
        accepted.settimeout(5)
        yield client, accepted


def _mac(lab: Lab, owner: str) -> str:
    """Return the MAC address of a node, or of a firewall's interface ``lan``."""
    if owner in lab.topology.nodes:
        return lab.topology.nodes[owner].interface.mac
    return next(each.mac for each in lab.topology.firewalls[owner].interfaces if each.name == "lan")


def _errors(lab: Lab, family: int, side: int, client: socket.socket) -> Iterator[bytes]:
    """Yield an error of every type and code, by the peer, by an address of the path and by a stranger."""
    here, there = _ENDS[family][side], _ENDS[family][1 - side]
    ports = client.getsockname()[1], PORT
    source, port = (ports[1], ports[0]) if side == 0 else ports
    about = (IP if family == 4 else IPv6)(src=there, dst=here) / TCP(sport=source, dport=port, flags="A")
    letter = bytes(about) + _MARKER * 30
    node, firewall, _ = _SIDES[side]
    head = Ether(src=_mac(lab, node), dst=_mac(lab, firewall))
    for sender in (here, _PATH[family][side], _STRANGERS[family][side]):
        for kind, code in _ERRORS[family]:
            if family == 4:
                yield bytes(head / IP(src=sender, dst=there) / ICMP(type=kind, code=code) / Raw(letter))
            else:
                body = ICMPv6Unknown(type=kind, code=code, msgbody=b"\0\0\x05\0" + letter)
                yield bytes(head / IPv6(src=sender, dst=there, hlim=255) / body)


def _heard(capture: socket.socket) -> list[bytes]:
    """Return what has come to a capture so far."""
    found = []
    capture.settimeout(0.3)
    with suppress(TimeoutError):
        while True:
            found.append(capture.recv(65536))
    return found


@pytest.mark.parametrize("side", [0, 1], ids=["from the client's side", "from the server's side"])
@pytest.mark.parametrize("family", [4, 6])
def test_no_error_about_a_living_connection_passes(lab: Lab, family: int, side: int) -> None:
    """Of all ICMP errors that quote a connection not one byte arrives; each is counted, and the connection lives."""
    _, near, far = _SIDES[side]
    before = {each: lab.counters(each)["deny_icmp_error"] for each in (near, far)}
    with _connected(lab, family) as (client, server), packet_socket(lab, lab.wire_port(far, "lan")) as capture:
        sent = list(_errors(lab, family, side, client))
        with packet_socket(lab, lab.wire_port(near, "lan")) as wire:
            for frame in sent:
                wire.send(frame)
        client.sendall(b"after them")
        assert server.recv(100) == b"after them"
        server.sendall(b"and back")
        assert client.recv(100) == b"and back"
        heard = _heard(capture)
    assert any(b"after them" in each or b"and back" in each for each in heard)
    assert not any(_MARKER in each for each in heard)
    assert lab.counters(near)["deny_icmp_error"] - before[near] == len(sent)
    assert lab.counters(far)["deny_icmp_error"] == before[far]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("flags", ["S", "R", "SA"])
def test_no_byte_before_or_after_a_connection_passes(lab: Lab, family: int, flags: str) -> None:
    """What SYN, SYN-ACK and RST carry does not arrive, in either direction of a permitted pair; each is counted."""
    side = 1 if flags == "SA" else 0
    here, there = _ENDS[family][side], _ENDS[family][1 - side]
    node, near, far = _SIDES[side]
    ports = {"sport": PORT, "dport": 40001} if side else {"sport": 40001, "dport": PORT}
    frame = bytes(
        Ether(src=_mac(lab, node), dst=_mac(lab, near))
        / (IP if family == 4 else IPv6)(src=here, dst=there)
        / TCP(flags=flags, **ports)
        / Raw(_MARKER * 40)
    )
    before = lab.counters(near)["deny_syn_data"]
    with packet_socket(lab, lab.wire_port(far, "lan")) as capture:
        with packet_socket(lab, lab.wire_port(near, "lan")) as wire:
            for _ in range(20):
                wire.send(frame)
        assert not any(_MARKER in each for each in _heard(capture))
    assert lab.counters(near)["deny_syn_data"] - before == 20


@pytest.fixture(name="narrow", scope="module")
def _narrow(able: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:  # noqa: ARG001 - for its skip
    """Yield the small network with a line in the middle that carries less than both ends may say."""
    topology = _narrowed(small_topology("narrow"))
    build = tmp_path_factory.mktemp("narrow") / "build"
    compile_topology(topology, build)
    with Lab(topology, build) as living:
        yield living


def _narrowed(topology: Topology) -> Topology:
    line = replace(topology.segments["line"], mtu=_LINE)
    return replace(topology, segments={**topology.segments, "line": line})


def _carried(lab: Lab, family: int, seconds: float) -> tuple[int, int]:
    """Return how many bytes of a bulk transfer each way arrive in time."""
    with _connected(lab, family) as ends:
        found = [0, 0]

        def take(number: int) -> None:
            ends[number].settimeout(seconds)
            with suppress(OSError):
                while found[number] < _BULK and (part := ends[number].recv(65536)):
                    found[number] += len(part)

        def give(number: int) -> None:
            with suppress(OSError):
                ends[number].sendall(bytes(_BULK))

        threads = [threading.Thread(target=each, args=(n,), daemon=True) for each in (take, give) for n in (0, 1)]
        for each in threads:
            each.start()
        for each in threads[:2]:
            each.join(10 * seconds)
    return found[0], found[1]


@pytest.mark.parametrize("family", [4, 6])
def test_all_of_a_transfer_gets_over_a_narrow_line(narrow: Lab, family: int) -> None:
    """No packet is too big for the line in the middle, though nobody is told how big they may be."""
    assert _carried(narrow, family, 5) == (_BULK, _BULK)


def test_without_the_segment_size_big_packets_are_lost(narrow: Lab, tmp_path: Path) -> None:
    """It is the rule that does it: without it on both firewalls nothing large arrives."""
    for firewall in ("edge", "core"):
        rules = (narrow.build / firewall / "nftables.nft").read_text(encoding="utf-8")
        path = tmp_path / f"{firewall}.nft"
        path.write_text(rules.replace("tcp flags & syn != 0 jump segment_size", ""), encoding="utf-8")
        narrow.load(firewall, path)
    try:
        assert max(_carried(narrow, 6, 1)) < _BULK
    finally:
        for firewall in ("edge", "core"):
            narrow.renew(firewall)
