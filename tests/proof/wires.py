"""A firewall's real kernel between two wires: its whole build, and frames of one's own."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pyroute2 import IPRoute
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from conformance.lab.apply import apply_build
from conformance.lab.namespace import Namespace
from conformance.lab.reaper import Reaper
from netpolicy.topology.model import Firewall, Topology

ALPHA, GAMMA = "10.77.1.10", "10.77.3.10"
PROBES = 20
_ETH_P_ALL, _SOL_PACKET, _IGNORE_OUTGOING = 3, 263, 23
_PATIENCE = 2.0


class Wires:
    """One firewall of the small network, and the ends of its two wires."""

    def __init__(self, firewall: Firewall, reaper: Reaper, stack: ExitStack) -> None:
        self.kernel = Namespace("firewall", reaper)
        stack.callback(self.kernel.close)
        self._ends = Namespace("ends", reaper)
        stack.callback(self._ends.close)
        self._near, self._far = firewall.interfaces
        self._ends.call(self._add_pairs)
        self._sockets = {each.name: self._opened(each.name, stack) for each in firewall.interfaces}

    def forbidden(self, port: int) -> int:
        """Return how many of 20 segments to a port of gamma's come out on the far side.

        Each is the only one of its connection; between them goes one that is permitted, which must always come out.
        """
        far = self._sockets[self._far.name]
        found = permitted = 0
        for number in range(PROBES):
            for to in (port, 17000):
                self._sockets[self._near.name].send(self._frame(30000 + number, to))
            deadline = time.monotonic() + _PATIENCE
            while time.monotonic() < deadline:
                try:
                    seen = Ether(far.recv(2048))
                except BlockingIOError:
                    time.sleep(0.002)
                    continue
                if TCP in seen and seen[TCP].sport == 30000 + number:
                    found += seen[TCP].dport == port
                    if seen[TCP].dport == 17000:
                        permitted += 1
                        break
        assert permitted == PROBES, "what is permitted does not arrive: nothing that was seen counts"
        return found

    def _frame(self, source: int, to: int) -> bytes:
        segment = IP(src=ALPHA, dst=GAMMA, ttl=64) / TCP(sport=source, dport=to, flags="S", seq=1)
        return bytes(Ether(src="02:77:00:00:01:0a", dst=self._near.mac) / segment)

    def _add_pairs(self) -> None:
        with IPRoute() as route:
            for each in (self._near, self._far):
                peer = {"ifname": each.name, "address": each.mac, "net_ns_fd": self.kernel.fd}
                route.link("add", ifname=f"end-{each.name}", kind="veth", peer=peer)
                route.link("set", index=route.link_lookup(ifname=f"end-{each.name}")[0], state="up")

    def _opened(self, name: str, stack: ExitStack) -> socket.socket:
        def opened() -> socket.socket:
            found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            found.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
            found.bind((f"end-{name}", _ETH_P_ALL))
            found.setblocking(False)
            return found

        return stack.enter_context(self._ends.call(opened))


@contextmanager
def wires(topology: Topology, build: Path, firewall: str = "edge") -> Iterator[Wires]:
    """Yield a firewall that has taken all of its files."""
    with Reaper() as reaper, ExitStack() as stack:
        found = Wires(topology.firewalls[firewall], reaper, stack)
        found.kernel.run(["ip", "link", "set", "lo", "up"], timeout=20)  # as on every firewall; relays' routes need it
        apply_build(found.kernel, build / firewall)
        yield found
