"""The protocols and ports that are tried between any two ends."""

from __future__ import annotations

import random
from dataclasses import dataclass

from conformance.probe.shape import Shape
from netpolicy.topology.model import Topology

_WELL_KNOWN = {
    "tcp": {
        20: "FTP",
        21: "FTP",
        22: "SSH",
        23: "Telnet",
        25: "SMTP",
        53: "DNS",
        80: "HTTP",
        139: "SMB",
        443: "HTTP",
        445: "SMB",
        465: "SMTP",
        587: "SMTP",
        1433: "database",
        1521: "database",
        3306: "database",
        3389: "RDP",
        5432: "database",
        8080: "HTTP",
    },
    "udp": {53: "DNS", 123: "NTP", 443: "HTTP"},
}
_PASSIVE_FTP = 50021
"""Where a passive FTP server of the lab would listen (RFC 959)."""
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
    names: dict[tuple[str, int], str] = {}
    for protocol in topology.forbidden.values():
        for transport, ranges in (("tcp", protocol.tcp), ("udp", protocol.udp)):
            for each in ranges:
                names[transport, each.first] = names[transport, each.last] = str(protocol.title.en)
    for transport, ports in _WELL_KNOWN.items():
        for port, name in ports.items():
            names.setdefault((transport, port), name)
    names.setdefault(("tcp", _PASSIVE_FTP), "passive FTP")
    for service in topology.services.values():
        for ports_ in service.ports:
            names["tcp", ports_.first] = names["tcp", ports_.last] = service.id
    for service in topology.services.values():
        for ports_ in service.ports:
            for port in (ports_.first - 1, ports_.last + 1):
                if 0 < port < 65536:
                    names.setdefault(("tcp", port), f"beside {service.id}")
    drawn = random.Random(topology.digest)  # noqa: S311 - reproducible on purpose
    for number in range(_RANDOM_PORTS):
        names.setdefault(("udp" if number % 2 else "tcp", drawn.randrange(_HIGH, 65536)), "random")
    found = [
        Question(f"{name} {transport}/{port}", Shape.SYN if transport == "tcp" else Shape.UDP, port)
        for (transport, port), name in sorted(names.items())
    ]
    return (*found, Question("ICMP echo", Shape.ECHO, 0))


def to_the_firewall(topology: Topology) -> tuple[Question, ...]:
    """Return what is tried on a firewall's own addresses: ways to administer it, permitted and not."""
    wanted = {22, 23, 80, 443}
    managed = {flow.service for flow in topology.effective_flows() if flow.destinations.managed_by is not None}
    for name in managed:
        for ports in topology.services[name].ports:
            wanted.update((ports.first - 1, ports.first, ports.last, ports.last + 1))
    chosen = [each for each in questions(topology) if each.shape is Shape.SYN and each.port in wanted]
    return (*chosen, Question("SNMP udp/161", Shape.UDP, 161), Question("ICMP echo", Shape.ECHO, 0))
