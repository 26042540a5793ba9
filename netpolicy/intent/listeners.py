"""Which ports a relay listens on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from netpolicy.topology.model import Topology

_ABOVE, _BELOW = range(61001, 65536), range(32767, 1023, -1)
"""On either side of what the kernel hands out by itself (32768 to 60999: net.ipv4.ip_local_port_range), and none that
belongs to the system (RFC 6335)."""


def listener_ports(topology: Topology) -> Iterator[int]:
    """Yield the ports that a relay may listen on, in the order of their use.

    No service and no forbidden protocol has them.
    """
    taken = {port for ports in _taken(topology) for port in ports}
    return (port for port in chain(_ABOVE, _BELOW) if port not in taken)


def _taken(topology: Topology) -> Iterator[range]:
    for service in topology.services.values():
        yield from (range(ports.first, ports.last + 1) for ports in service.ports)
    for protocol in topology.forbidden.values():
        yield from (range(ports.first, ports.last + 1) for ports in protocol.tcp)
