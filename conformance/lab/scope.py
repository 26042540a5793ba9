"""The guard that everything which sends goes through: only inside the lab, only to the topology, only so much."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path

from conformance.lab.errors import LabError
from conformance.lab.lab import Lab
from conformance.lab.namespace import Namespace
from netpolicy.topology.model import Address, Prefix

MAX_PACKETS = 20_000_000
"""Default cap, over the whole life of a scope."""
MAX_SECONDS = 3600.0
"""Default cap, from the making of a scope."""

_NOBODY: tuple[Prefix, ...] = (
    # Never forwarded by any router: this network, link scope, multicast, limited broadcast (RFC 6890).
    IPv4Network("0.0.0.0/8"),
    IPv4Network("127.0.0.0/8"),
    IPv4Network("169.254.0.0/16"),
    IPv4Network("224.0.0.0/4"),
    IPv4Network("255.255.255.255/32"),
    IPv6Network("::/127"),
    IPv6Network("fe80::/10"),
    IPv6Network("ff00::/8"),
    # Documentation (RFC 5737, RFC 3849): what a probe of an unknown destination may name.
    IPv4Network("192.0.2.0/24"),
    IPv4Network("198.51.100.0/24"),
    IPv4Network("203.0.113.0/24"),
    IPv6Network("2001:db8::/32"),
)

_ETHERNET = 14
_ETHERTYPE_IPV4, _ETHERTYPE_IPV6, _ETHERTYPE_ARP = 0x0800, 0x86DD, 0x0806
_ETHERTYPE_VLAN = frozenset({0x8100, 0x88A8})
_DESTINATION = {
    # Offset and length of the destination in the header that follows the EtherType.
    _ETHERTYPE_IPV4: (16, 4),
    _ETHERTYPE_IPV6: (24, 16),
    _ETHERTYPE_ARP: (24, 4),
}


class ScopeError(LabError):
    """Something would have been sent where, or more than, it must not."""


class Scope:
    """What a sender asks before each batch.

    It refuses a namespace that is PID 1's, this process's own, or not the lab's; one that holds a device which the lab
    did not make; a destination that is neither in the topology nor nobody's; and more packets or time than the caps.
    """

    def __init__(
        self,
        lab: Lab,
        *,
        packets: int = MAX_PACKETS,
        seconds: float = MAX_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lab = lab
        self._lock = threading.Lock()
        self._packets_left = packets
        self._clock = clock
        self._end = clock() + seconds
        own = [prefix for each in lab.topology.segments.values() for prefix in each.prefixes]
        self._prefixes = (*own, *_NOBODY, *(each for prefix in own for each in _beside(prefix)))
        self._admitted: set[bytes] = set()

    @property
    def packets_left(self) -> int:
        """How many packets may still be sent."""
        return self._packets_left

    def admits(self, destination: Address) -> bool:
        """Tell whether something may be sent to a destination."""
        return any(destination.version == prefix.version and destination in prefix for prefix in self._prefixes)

    def admit_frames(self, namespace: Namespace, frames: Iterable[bytes]) -> None:
        """Let Ethernet frames be sent once from devices of `namespace`.

        A frame too short for a destination, or neither IP nor ARP, cannot leave its link and passes.

        Raises:
            ScopeError: Not one of them may be sent.

        """
        count = 0
        for frame in frames:
            count += 1
            destination = _destination(frame)
            if destination is not None and destination not in self._admitted:
                self._check_destination(_address(destination))
                self._admitted.add(destination)
        self._admit(namespace, count)

    def admit_connections(self, namespace: Namespace, destinations: Iterable[Address]) -> None:
        """Let one connection or exchange with each of `destinations` be opened from sockets of `namespace`.

        Each counts as one packet; the kernel decides how many it really takes.

        Raises:
            ScopeError: Not one of them may be opened.

        """
        count = 0
        for destination in destinations:
            count += 1
            self._check_destination(destination)
        self._admit(namespace, count)

    def _admit(self, namespace: Namespace, packets: int) -> None:
        self._check_namespace(namespace)
        if self._clock() > self._end:
            raise ScopeError("the time in which this run may send is over")
        with self._lock:
            if packets > self._packets_left:
                raise ScopeError(f"{packets} packets are more than the {self._packets_left} this run may still send")
            self._packets_left -= packets

    def _check_namespace(self, namespace: Namespace) -> None:
        inode = os.fstat(namespace.fd).st_ino
        for process, whose in (("1", "PID 1's"), ("self", "this process's own")):
            if inode == _network_of(process):
                raise ScopeError(f"network namespace '{namespace.name}' is {whose}")
        if inode not in set(self._lab_inodes()):
            raise ScopeError(f"network namespace '{namespace.name}' is not one of the lab")
        foreign = namespace.devices() - self._lab.devices(namespace)
        if foreign:
            raise ScopeError(
                f"'{namespace.name}' holds devices that the lab did not make: {', '.join(sorted(foreign))}"
            )

    def _lab_inodes(self) -> Iterator[int]:
        yield self._lab.wire.inode
        yield from (namespace.inode for namespace in self._lab.namespaces.values())

    def _check_destination(self, destination: Address) -> None:
        if not self.admits(destination):
            raise ScopeError(f"destination {destination} lies outside the topology")


def _beside(prefix: Prefix) -> Iterator[Prefix]:
    """Yield the addresses next to a prefix, where that is nobody's on the internet: what a probe of its edge names."""
    for address in (prefix.network_address - 1, prefix.broadcast_address + 1):
        if address.is_private:
            yield ip_network(address)


def _network_of(process: str) -> int | None:
    """Return the inode of a process's network namespace, None where the kernel does not tell.

    A process without all capabilities of PID 1 may not ask (ptrace(2)); what the lab made is still known by itself.
    """
    try:
        return Path(f"/proc/{process}/ns/net").stat().st_ino
    except PermissionError:
        return None


def _destination(frame: bytes) -> bytes | None:
    """Return the packed destination (of ARP: the target), None where the frame has none."""
    offset = _ETHERNET - 2
    while True:
        if len(frame) < offset + 2:
            return None
        (ethertype,) = struct.unpack_from("!H", frame, offset)
        offset += 2
        if ethertype not in _ETHERTYPE_VLAN:
            break
        offset += 2
    if ethertype not in _DESTINATION:
        return None
    start, length = _DESTINATION[ethertype]
    destination = frame[offset + start : offset + start + length]
    return destination if len(destination) == length else None


def _address(packed: bytes) -> Address:
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)
