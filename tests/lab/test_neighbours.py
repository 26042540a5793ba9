"""What hosts on a segment can make of ARP and neighbour discovery, beside a firewall and across it."""

from __future__ import annotations

import random
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address

import pytest
from scapy.layers.inet6 import ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import Ether

from conformance.lab import Lab

_LAN = "fd77:0:0:1::1"
"""Of the firewall ``edge``, on the segment of alpha and beta."""
_EDGE_MAC, _ALPHA_MAC = "02:77:00:00:01:01", "02:77:00:00:01:0a"
_SECONDS = 3.0
_SEED = 16


def _strangers(prefix: str, count: int) -> list[bytes]:
    """Return questions for the firewall's address by so many hosts that no topology has."""
    chance = random.Random(_SEED)  # noqa: S311 - nothing is secret
    frames = []
    for _ in range(count):
        source = IPv6Address(int(IPv6Address(prefix)) + chance.getrandbits(62) + 0x1000)
        question = ICMPv6ND_NS(tgt=_LAN) / ICMPv6NDOptSrcLLAddr(lladdr=_ALPHA_MAC)
        packet = IPv6(src=str(source), dst=_LAN, hlim=255) / question
        frames.append(bytes(Ether(src=_ALPHA_MAC, dst=_EDGE_MAC) / packet))
    return frames


@contextmanager
def _flood(lab: Lab, node: str, frames: list[bytes]) -> Iterator[None]:
    """Send frames over and over from a node, as fast as they go."""
    over = threading.Event()

    def pour() -> None:
        with lab.namespace(node).call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as out:
            out.bind(("eth0", 0))
            while not over.is_set():
                for frame in frames:
                    out.send(frame)

    thread = threading.Thread(target=pour)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _finds_the_firewall(lab: Lab, node: str) -> bool:
    """Tell whether a node that knows no neighbour finds the firewall at once, by asking once or twice."""
    node_namespace = lab.namespace(node)
    assert node_namespace.run(["ip", "-6", "neighbour", "flush", "dev", "eth0"], timeout=5).returncode == 0

    def asked() -> bool:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as out:
            out.sendto(b"?", (_LAN, 9))
        for _ in range(30):
            shown = subprocess.run(
                ["ip", "-6", "neighbour", "show", _LAN], capture_output=True, text=True, check=True
            ).stdout
            if "lladdr" in shown:
                return True
            time.sleep(0.05)
        return False

    return node_namespace.call(asked)


@pytest.mark.parametrize("prefix", ["fd77:0:0:1::", "fe80::"])
def test_questions_of_strangers_cut_no_neighbour_off(lab: Lab, prefix: str) -> None:
    """While one host asks in the name of thousands, its neighbour still finds the firewall, five times of five."""
    before = lab.counters("edge")["deny_input"]
    with _flood(lab, "alpha", _strangers(prefix, 2000)):
        found = [_finds_the_firewall(lab, "beta") for _ in range(5)]
    assert lab.counters("edge")["deny_input"] - before > 2000, "there was no flood"
    assert found == [True] * 5
