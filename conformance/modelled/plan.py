"""What surrounds the kernel under test: its interfaces, its addresses, and where each destination leads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from netpolicy.proof.fields import Family

Network = IPv4Network | IPv6Network

HERE = ""
"""Where a route leads whose destinations are the kernel's own."""
LISTENED = (3128, 8888)
"""Ports at which transparent sockets listen, TCP and UDP, on every address."""

_COARSE = {
    Family.IPV4: [(ip_network("0.0.0.0/1"), 4), (ip_network("128.0.0.0/2"), 4), (ip_network("192.0.0.0/3"), 4)],
    Family.IPV6: [(ip_network("2000::/3"), 5), (ip_network("fc00::/7"), 9)],
}
"""Networks to be cut to a prefix length; these leave through interfaces only."""
_FINE = {
    Family.IPV4: [
        (ip_network("10.0.0.0/8"), 16),
        (ip_network("172.16.0.0/12"), 16),
        (ip_network("192.168.0.0/16"), 24),
    ],
    Family.IPV6: [(ip_network("2001:db8::/32"), 40), (ip_network("fd00::/8"), 16)],
}
"""Those that people write rules about: some of their parts are the kernel's own addresses."""
_SHARE = 5
"""One of so many is."""


def mac_of(place: int) -> bytes:
    """Return the MAC address of an interface."""
    return bytes((2, 0, 0, 0, 1, place))


NEIGHBOUR = bytes.fromhex("020000000001")
"""The MAC address of everyone else."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Interfaces by name, and routes."""

    interfaces: tuple[str, ...]
    _routes: Mapping[tuple[Family, int], Mapping[int, str]] = field(init=False)
    """By family and prefix length: the network's leading bits, and the interface."""

    def __post_init__(self) -> None:
        found: dict[tuple[Family, int], dict[int, str]] = {}
        for network, interface in self.routes():
            family = Family.IPV4 if network.version == 4 else Family.IPV6
            bits = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
            found.setdefault((family, network.prefixlen), {})[bits] = interface
        ordered = sorted(found.items(), key=lambda each: -each[0][1])
        object.__setattr__(self, "_routes", dict(ordered))

    def routes(self) -> Iterator[tuple[Network, str]]:
        """Yield every network with the interface that its packets leave by, or HERE."""
        for several, own in ((_COARSE, False), (_FINE, True)):
            for networks in several.values():
                place = 0
                for network, length in networks:
                    for part in network.subnets(new_prefix=length):
                        here = own and place % _SHARE == _SHARE - 1
                        yield part, HERE if here else self.interfaces[place % len(self.interfaces)]
                        place += 1

    def destination(self, family: Family, towards: str) -> int:
        """Return an address that leads to an interface, or HERE."""
        own = 32 if family is Family.IPV4 else 128
        fine = (part for part, way in self.routes() if part.max_prefixlen == own and way == towards)
        return int(next(fine).network_address) + 9

    def towards(self, family: Family, destination: int) -> str | None:
        """Return the interface of a destination, HERE for the kernel's own, or None for one without a route."""
        for (of, length), known in self._routes.items():
            if of is family:
                way = known.get(destination >> (family.bits - length))
                if way is not None:
                    return way
        return None

    def address(self, family: Family, interface: str, host: int) -> IPv4Address | IPv6Address:
        """Return an address on an interface's own network: 1 is the kernel's, 2 the next hop's."""
        place = self.interfaces.index(interface)
        if family is Family.IPV4:
            return IPv4Address(f"198.18.{place}.{host}")
        return IPv6Address(f"2001:2:0:{place:x}::{host:x}")

    def commands(self) -> Iterator[str]:
        """Yield lines for ``ip -batch`` that bring it about; the interfaces exist."""
        yield "link set lo up"
        for name in self.interfaces:
            yield f"link set {name} up"
            for family, length in ((Family.IPV4, 24), (Family.IPV6, 64)):
                yield f"address add {self.address(family, name, 1)}/{length} dev {name}" + (
                    " nodad" if family is Family.IPV6 else ""
                )
                hop = self.address(family, name, 2)
                yield f"neighbour add {hop} lladdr {_text(NEIGHBOUR)} dev {name} nud permanent"
        for network, interface in self.routes():
            if interface == HERE:
                yield f"route add local {network} dev lo"
            else:
                family = Family.IPV4 if network.version == 4 else Family.IPV6
                yield f"route add {network} via {self.address(family, interface, 2)} dev {interface}"


def _text(mac: bytes) -> str:
    return mac.hex(":")


def names_for(wanted: Sequence[str], fewest: int) -> tuple[str, ...]:
    """Return names of interfaces for a ruleset that asks for some, of which those with ``*`` stand for many."""
    found = []
    for name in wanted:
        chosen = name[:-1] + "0" if name.endswith("*") else name
        if chosen and chosen not in found and chosen != "lo" and len(chosen) < 16:
            found.append(chosen)
    spare = (f"spare{place}" for place in range(fewest))
    while len(found) < fewest:
        found.append(next(spare))
    return tuple(found)
