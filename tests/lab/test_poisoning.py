"""What a host on a segment makes of others by ARP and neighbour discovery: of a firewall nothing, across it nothing.

Hosts on one segment have no firewall between them. Its neighbour's traffic a host can have, and stop; TLS keeps it from
reading or changing any.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from conformance.lab import Lab, Namespace
from tests.lab.small import PORT
from tests.lab.test_lab import listening, packet_socket

_EVERYBODY, _ALL_NODES, _ALL_NODES_MAC = "ff:ff:ff:ff:ff:ff", "ff02::1", "33:33:00:00:00:01"
_FAR = {4: "10.77.3.10", 6: "fd77:0:0:3::a"}
_BOX_MAC = "02:77:00:00:02:99"
_PATIENCE = 5.0
_LOCKED = 1.2
"""Seconds until Linux believes another one after an entry was confirmed (``locktime``)."""


@dataclass(frozen=True, slots=True)
class _Foothold:
    """Where an attacker stands, and whom it wants to be."""

    namespace: Namespace
    device: str
    mac: str
    firewall: str
    interface: str
    victim: str
    """Somebody else on the segment, by the end of its addresses."""
    segment: int

    def address(self, family: int, host: str) -> str:
        """Return an address on the segment; `host` is a hexadecimal number."""
        return f"10.77.{self.segment}.{int(host, 16)}" if family == 4 else f"fd77:0:0:{self.segment}::{host}"

    def firewall_mac(self, lab: Lab) -> str:
        """Return the MAC address of the firewall's interface."""
        return next(
            each.mac for each in lab.topology.firewalls[self.firewall].interfaces if each.name == self.interface
        )


@contextmanager
def _foothold(lab: Lab, name: str) -> Iterator[_Foothold]:
    """Yield a node of the town that has fallen, or a box that somebody has plugged into the line."""
    if name == "beta":
        mac = lab.topology.nodes["beta"].interface.mac
        yield _Foothold(lab.namespace("beta"), "eth0", mac, "edge", "lan", "a", 1)
        return
    for argv in (
        ("ip", "link", "add", "box", "type", "veth", "peer", "name", "boxport"),
        ("ip", "link", "set", "boxport", "master", "segment1", "up"),
        ("ip", "link", "set", "box", "address", _BOX_MAC, "up"),
    ):
        assert lab.wire.run(argv, timeout=5).returncode == 0
    try:
        yield _Foothold(lab.wire, "box", _BOX_MAC, "edge", "wan", "2", 2)
    finally:
        assert lab.wire.run(["ip", "link", "delete", "box"], timeout=5).returncode == 0


def _lies(here: _Foothold, firewall_mac: str) -> Iterator[Packet]:
    """Yield everything by which a host could say that an address, a route or a router is its own."""
    own, victims = here.mac, (here.victim, "1")
    for family, victim in product((4, 6), victims):
        who, firewall = here.address(family, victim), here.address(family, "1")
        if family == 4:
            for to, kind in product((_EVERYBODY, firewall_mac), (1, 2)):
                yield Ether(src=own, dst=to) / ARP(op=kind, hwsrc=own, psrc=who, hwdst=own, pdst=who)
                yield Ether(src=own, dst=to) / ARP(op=kind, hwsrc=own, psrc=who, hwdst=firewall_mac, pdst=firewall)
            yield Ether(src=own, dst=_EVERYBODY) / ARP(op=1, hwsrc=own, psrc="0.0.0.0", pdst=who)  # RFC 5227
            about = IP(src=firewall, dst=_FAR[4]) / UDP(dport=PORT)
            yield Ether(src=own, dst=firewall_mac) / IP(src=who, dst=firewall) / ICMP(type=5, code=1, gw=who) / about
            continue
        for solicited, override, router in product((0, 1), repeat=3):
            said = ICMPv6ND_NA(R=router, S=solicited, O=override, tgt=who) / ICMPv6NDOptDstLLAddr(lladdr=own)
            for mac, to in ((firewall_mac, firewall), (_ALL_NODES_MAC, _ALL_NODES)):
                yield Ether(src=own, dst=mac) / IPv6(src=who, dst=to, hlim=255) / said
        asked = ICMPv6ND_NS(tgt=firewall) / ICMPv6NDOptSrcLLAddr(lladdr=own)
        yield Ether(src=own, dst=firewall_mac) / IPv6(src=who, dst=firewall, hlim=255) / asked
        yield Ether(src=own, dst=firewall_mac) / IPv6(src="::", dst=firewall, hlim=255) / ICMPv6ND_NS(tgt=who)
        prefix = ICMPv6NDOptPrefixInfo(prefix="fd77:0:0:3::", prefixlen=64) / ICMPv6NDOptSrcLLAddr(lladdr=own)
        router_said = ICMPv6ND_RA(routerlifetime=9000, prf=1) / prefix
        turned = ICMPv6ND_Redirect(tgt=who, dst=_FAR[6]) / ICMPv6NDOptDstLLAddr(lladdr=own)
        for body in (router_said, turned):
            for source in ("fe80::99", who):
                yield Ether(src=own, dst=firewall_mac) / IPv6(src=source, dst=firewall, hlim=255) / body
                yield Ether(src=own, dst=_ALL_NODES_MAC) / IPv6(src=source, dst=_ALL_NODES, hlim=255) / body


def _known(lab: Lab, owner: str) -> dict[str, Any]:
    """Return the addresses, routes and neighbours that the kernel of an owner goes by."""
    found: dict[str, Any] = {}
    for what in (("address",), ("-4", "route", "show", "table", "all"), ("-6", "route", "show", "table", "all")):
        found[" ".join(what)] = _ip(lab, owner, *what)
    named = {str(address) for each in lab.topology.nodes.values() for address in each.interface.addresses}
    for firewall in lab.topology.firewalls.values():
        named |= {str(address) for interface in firewall.interfaces for address in interface.addresses}
    entries = _ip(lab, owner, "neighbour", "show", "nud", "all")
    found["neighbours"] = sorted((at, each.get("lladdr")) for each in entries if (at := each["dst"]) in named)
    return found


def _ip(lab: Lab, owner: str, *what: str) -> list[dict[str, Any]]:
    done = lab.namespace(owner).run(["ip", "-j", *what], timeout=5)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout or "[]")  # type: ignore[no-any-return]  # what ip prints


def _send(here: _Foothold, frames: list[bytes]) -> None:
    with here.namespace.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as out:
        out.bind((here.device, 0))
        for frame in frames:
            out.send(frame)


def _heard(capture: socket.socket) -> set[bytes]:
    """Return the frames that have come to a capture."""
    capture.settimeout(0.2)
    found = set()
    while True:
        try:
            found.add(capture.recv(2048))
        except TimeoutError:
            return found


def _passes(lab: Lab, family: int) -> bool:
    """Tell whether alpha has an exchange with gamma in time."""
    end = time.monotonic() + _PATIENCE
    with listening(lab, "gamma", _FAR[family], PORT) as server:
        while time.monotonic() < end:
            try:
                client = lab.namespace("alpha").call(lambda: socket.create_connection((_FAR[family], PORT), timeout=1))
            except OSError:
                continue
            with client, server.accept()[0] as accepted:
                client.sendall(b"ping")
                accepted.settimeout(2)
                return accepted.recv(4) == b"ping"
    return False


@pytest.mark.parametrize("name", ["beta", "line"])
def test_lies_change_no_firewall_and_cross_none(lab: Lab, name: str) -> None:
    """Each arrives, each thrice; both firewalls and the far side know what they knew, and hear nothing of it."""
    with _foothold(lab, name) as here:
        frames = [bytes(each) for each in _lies(here, here.firewall_mac(lab))]
        assert all(_passes(lab, family) for family in (4, 6))
        before = {owner: _known(lab, owner) for owner in ("edge", "core", "gamma")}
        arrivals = lab.namespace("edge").call(lambda: _capture(here.interface))
        beyond = packet_socket(lab, lab.wire_port("core", "lan"))
        with arrivals, beyond:
            _send(here, frames * 3)
            assert set(frames) <= _heard(arrivals), "the frames did not arrive"
            crossed = _heard(beyond)
        assert {owner: _known(lab, owner) for owner in before} == before
        assert not [each for each in crossed if bytes.fromhex(here.mac.replace(":", "")) in each]
        for owner in ("alpha", "gamma"):
            lab.namespace(owner).run(["ip", "neighbour", "flush", "dev", "eth0"], timeout=5)
        assert all(_passes(lab, family) for family in (4, 6))


def _capture(device: str) -> socket.socket:
    capture = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    capture.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    capture.bind((device, 3))
    return capture


def test_a_neighbour_on_the_same_segment_believes_them(lab: Lab) -> None:
    """The same lies work where no firewall stands between, so that they are worth something; alpha then asks beta."""
    with _foothold(lab, "beta") as here:
        assert all(_passes(lab, family) for family in (4, 6))
        own = "10.77.1.1"
        to_alpha = lab.topology.nodes["alpha"].interface.mac
        lie = Ether(src=here.mac, dst=to_alpha) / ARP(op=2, hwsrc=here.mac, psrc=own, hwdst=to_alpha, pdst="10.77.1.10")
        time.sleep(_LOCKED)
        _send(here, [bytes(lie)] * 3)
        time.sleep(0.1)
        (entry,) = _ip(lab, "alpha", "neighbour", "show", own)
        lab.namespace("alpha").run(["ip", "neighbour", "flush", "dev", "eth0"], timeout=5)
        assert entry["lladdr"] == here.mac
        assert _passes(lab, 4)


@pytest.mark.parametrize("name", ["beta", "line"])
def test_a_firewall_whose_mac_address_was_taken_is_found_again(lab: Lab, name: str) -> None:
    """A switch sends frames where an address was seen last; who asks everybody anew, or hears from it, has it back."""
    with _foothold(lab, name) as here:
        question = ARP(op=1, psrc="10.77.9.9", pdst="10.77.9.8")
        taken = Ether(src=here.firewall_mac(lab), dst="02:77:00:00:00:01") / question
        _send(here, [bytes(taken)] * 3)
        lab.namespace("alpha").run(["ip", "neighbour", "flush", "dev", "eth0"], timeout=5)
        assert all(_passes(lab, family) for family in (4, 6))
