"""What every namespace of the lab has, and the nodes: addresses and routes as on a plain host."""

from __future__ import annotations

import array
import fcntl
import socket
import struct

from pyroute2 import IPRoute

from conformance.lab.namespace import Namespace
from conformance.lab.network import index_of, write_settings
from netpolicy.intent.model import Route
from netpolicy.topology.model import Interface, Node, Topology

_SIOCETHTOOL = 0x8946
_ETHTOOL_STXCSUM = 0x17
_IFA_F_NODAD = 0x02

_NODE_IPV6 = {
    "accept_ra": "0",
    "autoconf": "0",
    "router_solicitations": "0",
    "accept_dad": "0",
    "dad_transmits": "0",
    # Milliseconds until a multicast report (RFC 3810) is repeated; the first goes nowhere, as the bridges are down.
    "mldv2_unsolicited_report_interval": "3600000",
}


def settle(namespace: Namespace, interfaces: tuple[Interface, ...]) -> None:
    """Bring the loopback device up, and have full checksums in every frame that leaves by `interfaces`.

    A veth pair otherwise hands frames over with checksums that only real hardware would fill in, and segments larger
    than the MTU: captures would show what no network carries.

    Raises:
        OSError: The kernel refuses.

    """

    def inside() -> None:
        with IPRoute() as route:
            route.link("set", index=index_of(route, ["lo"])["lo"], state="up")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
            for interface in interfaces:
                _checksum_in_software(handle, interface.name)

    namespace.call(inside)


def settle_engine(namespace: Namespace, devices: tuple[str, ...]) -> None:
    """Bring up the two wires of an engine, which have no addresses, with full checksums in what leaves by them.

    Raises:
        OSError: The kernel refuses.

    """

    def inside() -> None:
        with IPRoute() as route:
            for index in index_of(route, devices).values():
                route.link("set", index=index, state="up")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
            for device in devices:
                _checksum_in_software(handle, device)

    namespace.call(inside)


def silence(namespace: Namespace) -> None:
    """Make the kernel of a node's namespace one that only speaks when spoken to; its interface does not exist yet.

    Raises:
        OSError: The kernel lacks a setting.

    """
    settings = {
        # Inherited from the machine's own namespace unless said (net.core.devconf_inherit_init_net).
        "net/ipv4/ip_forward": "0",
        **{f"net/ipv6/conf/{scope}/{key}": value for scope in ("all", "default") for key, value in _NODE_IPV6.items()},
    }
    namespace.call(lambda: write_settings(settings))


def configure(topology: Topology, node: Node, routes: tuple[Route, ...], namespace: Namespace) -> None:
    """Give a node its addresses, its link and its routes. It finds its neighbours itself, by ARP and ND.

    Raises:
        pyroute2.NetlinkError: The kernel refuses one.

    """
    prefixes = topology.segments[node.interface.segment].prefixes

    def inside() -> None:
        with IPRoute() as route:
            index = index_of(route, [node.interface.name])[node.interface.name]
            for address in node.interface.addresses:
                length = next(prefix.prefixlen for prefix in prefixes if prefix.version == address.version)
                flags = _IFA_F_NODAD if address.version == 6 else 0
                route.addr("add", index=index, address=str(address), prefixlen=length, flags=flags)
            route.link("set", index=index, state="up")
            for entry in routes:
                route.route("add", dst=str(entry.prefix), gateway=str(entry.via), oif=index)

    namespace.call(inside)


def _checksum_in_software(handle: socket.socket, device: str) -> None:
    value = array.array("I", [_ETHTOOL_STXCSUM, 0])
    address, _ = value.buffer_info()
    fcntl.ioctl(handle, _SIOCETHTOOL, struct.pack("16sP16x", device.encode(), address))
