"""The protocols and ports that are tried between any two ends."""

from __future__ import annotations

import random
from dataclasses import dataclass

from conformance.probe.shape import Shape
from netpolicy.topology.model import Topology

_WELL_KNOWN = {
    **dict.fromkeys((("tcp", port) for port in (25, 465, 587)), "SMTP"),
    **dict.fromkeys((("tcp", 80), ("tcp", 8080), ("tcp", 443), ("udp", 443)), "HTTP"),
    **dict.fromkeys((("tcp", 20), ("tcp", 21)), "FTP"),
    ("tcp", 50021): "passive FTP",  # where a server of the lab might listen (RFC 959)
    ("tcp", 23): "Telnet",
    ("tcp", 22): "SSH",
    ("tcp", 3389): "RDP",
    **dict.fromkeys((("tcp", 139), ("tcp", 445)), "SMB"),
    **dict.fromkeys((("tcp", port) for port in (1433, 1521, 3306, 5432)), "database"),
    **dict.fromkeys((("tcp", 53), ("udp", 53)), "DNS"),
    ("udp", 123): "NTP",
}
_RANDOM_PORTS = 4
_HIGH = 20000


@dataclass(frozen=True, slots=True)
class Question:
    """A protocol on a port."""

    label: str
    shape: Shape
    port: int


def questions(topology: Topology) -> tuple[Question, ...]:
    """Return what is tried between any two ends, each port of each transport once.

    Random ports are drawn from the topology's digest: the same file asks the same.
    """
    names = _names(topology)
    drawn = random.Random(topology.digest)  # noqa: S311 - reproducible on purpose
    for number in range(_RANDOM_PORTS):
        names.setdefault(("udp" if number % 2 else "tcp", drawn.randrange(_HIGH, 65536)), "random")
    found = [
        Question(f"{name} {transport}/{port}", Shape.SYN if transport == "tcp" else Shape.UDP, port)
        for (transport, port), name in sorted(names.items())
    ]
    return (*found, Question("ICMP echo", Shape.ECHO, 0))


def _names(topology: Topology) -> dict[tuple[str, int], str]:
    """Return what each transport and port is known as: by the topology first, then by common usage."""
    names: dict[tuple[str, int], str] = {}
    for protocol in topology.forbidden.values():
        for transport, ranges in (("tcp", protocol.tcp), ("udp", protocol.udp)):
            for each in ranges:
                names[transport, each.first] = names[transport, each.last] = protocol.title.en
    for (transport, port), name in _WELL_KNOWN.items():
        names.setdefault((transport, port), name)
    served = [(service.id, each) for service in topology.services.values() for each in service.ports]
    for name, ports in served:
        names["tcp", ports.first] = names["tcp", ports.last] = name
    for name, ports in served:
        for port in (ports.first - 1, ports.last + 1):
            if 0 < port < 65536:
                names.setdefault(("tcp", port), f"beside {name}")
    return names


def to_the_firewall(topology: Topology) -> tuple[Question, ...]:
    """Return what is tried on a firewall's own addresses: ways to administer it, permitted and not."""
    wanted = {22, 23, 80, 443}
    managed = {flow.service for flow in topology.effective_flows() if flow.destinations.managed_by is not None}
    for name in managed:
        for ports in topology.services[name].ports:
            wanted.update((ports.first - 1, ports.first, ports.last, ports.last + 1))
    chosen = [each for each in questions(topology) if each.shape is Shape.SYN and each.port in wanted]
    return (*chosen, Question("SNMP udp/161", Shape.UDP, 161), Question("ICMP echo", Shape.ECHO, 0))
