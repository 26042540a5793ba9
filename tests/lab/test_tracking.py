"""How many places in connection tracking a foothold can take: none by what is dropped, and no more than a flow's."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether

from conformance.lab import Lab
from netpolicy.intent.derive import derive_intents
from netpolicy.nftables.ruleset import emit_ruleset
from netpolicy.topology.model import DEFAULT_RATE, Limits
from tests.lab.small import PORT, small_topology

_DEAF = f"table inet deaf {{ chain input {{ type filter hook input priority 0; tcp dport {PORT} drop; }}; }}"
"""Of a server: what it answers with RST would take no place for long."""
_SEED = 16
_FRAMES = 1000
_NETWORKS = {4: "10.77.{}.{}", 6: "fd77:0:0:{}::{:x}"}
_FOOTHOLDS = {
    "alpha": ("edge", "lan", 1),
    "beta": ("edge", "lan", 1),
    "line": ("core", "wan", 2),
    "gamma": ("core", "lan", 3),
}
"""By name, the firewall beside it, its interface and the segment's number."""


def _places(lab: Lab, firewall: str) -> int:
    path = Path("/proc/sys/net/netfilter/nf_conntrack_count")
    return lab.namespace(firewall).call(lambda: int(path.read_text(encoding="ascii")))


def _mac(lab: Lab, firewall: str, interface: str) -> str:
    return next(each.mac for each in lab.topology.firewalls[firewall].interfaces if each.name == interface)


def _send(lab: Lab, foothold: str, frames: list[bytes]) -> None:
    """Send frames from a node, or from a box on the line: at the wire's end of the firewall's interface."""
    firewall, interface, _ = _FOOTHOLDS[foothold]
    is_node = foothold in lab.topology.nodes
    namespace = lab.namespace(foothold) if is_node else lab.wire
    device = "eth0" if is_node else lab.wire_port(firewall, interface)
    with namespace.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as out:
        out.bind((device, 0))
        for frame in frames:
            out.send(frame)


def _forbidden(lab: Lab, foothold: str) -> Iterator[bytes]:
    """Yield first packets of every kind that no flow permits, each of a connection of its own."""
    firewall, interface, segment = _FOOTHOLDS[foothold]
    head = Ether(src="02:77:00:00:00:99", dst=_mac(lab, firewall, interface))
    chance = random.Random(_SEED)  # noqa: S311 - nothing is secret
    for number in range(_FRAMES):
        flags, port = chance.choice(("S", "A", "SA", "F")), chance.choice((22, 80, PORT + 1))
        family = chance.choice((4, 6))
        address = _NETWORKS[family]
        source = address.format(segment, chance.choice((2, 10, 11, 77)))
        destination = address.format(*chance.choice(((1, 1), (1, 10), (2, 1), (2, 2), (3, 1), (3, 10), (3, 77))))
        packet = IP(src=source, dst=destination) if family == 4 else IPv6(src=source, dst=destination)
        echo = ICMP(id=number) if family == 4 else ICMPv6EchoRequest(id=number)
        tcp = TCP(sport=1024 + number, dport=port, flags=flags)
        yield bytes(head / packet / chance.choice((tcp, UDP(sport=1024 + number, dport=PORT), echo)))


@pytest.mark.parametrize("foothold", _FOOTHOLDS)
def test_what_is_dropped_takes_no_place(lab: Lab, foothold: str) -> None:
    """A thousand first packets of every kind that no flow permits leave both firewalls' tables as they were."""
    firewall, _, _ = _FOOTHOLDS[foothold]
    for each in lab.firewalls:
        lab.flush_conntrack(each)
    before = sum(count for name, count in lab.counters(firewall).items() if name.startswith("deny_"))
    _send(lab, foothold, list(_forbidden(lab, foothold)))
    time.sleep(0.2)
    refused = sum(count for name, count in lab.counters(firewall).items() if name.startswith("deny_")) - before
    assert refused >= _FRAMES, "the frames did not arrive"
    assert {each: _places(lab, each) for each in lab.firewalls} == {"edge": 0, "core": 0}


@pytest.mark.parametrize("family", [4, 6])
def test_a_flow_without_limits_has_some(lab: Lab, tmp_path: Path, family: int) -> None:
    """2,000 openings of a permitted flow, whose author gave no limit, take what its defaults allow, and no more."""
    ruleset = tmp_path / "nftables.nft"
    ruleset.write_text(emit_ruleset(derive_intents(small_topology(limits=Limits()))["edge"]), encoding="utf-8")
    head = Ether(src=lab.topology.nodes["alpha"].interface.mac, dst=_mac(lab, "edge", "lan"))
    kind, address = {4: IP, 6: IPv6}[family], _NETWORKS[family]
    packet = kind(src=address.format(1, 10), dst=address.format(3, 10))
    frames = [bytes(head / packet / TCP(sport=20000 + number, dport=PORT, flags="S")) for number in range(2000)]
    lab.load("edge", ruleset)
    lab.flush_conntrack("edge")
    assert lab.namespace("gamma").run(["nft", "-f", "-"], timeout=5, input=_DEAF).returncode == 0
    begun = time.monotonic()
    _send(lab, "alpha", frames)
    time.sleep(0.2)
    came_in = DEFAULT_RATE * (time.monotonic() - begun)  # tokens, while they were sent
    places, counters = _places(lab, "edge"), lab.counters("edge")
    assert lab.namespace("gamma").run(["nft", "flush", "ruleset"], timeout=5).returncode == 0
    lab.flush_conntrack("edge")
    lab.load("edge", lab.build / "edge" / "nftables.nft")
    assert counters["flow_notice"] + counters["deny_rate"] == 2000
    assert DEFAULT_RATE <= places <= DEFAULT_RATE + came_in + 1
