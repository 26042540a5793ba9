"""The wires: one bridge for each segment, one veth pair for each interface of a node or firewall."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from pyroute2 import IPRoute

from conformance.lab.namespace import Namespace
from conformance.lab.tap import QUEUE, make_tap
from netpolicy.topology.model import Interface, Segment, Topology

_SILENT_WIRE = {
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
    # Inherited from the machine's own namespace unless said (net.core.devconf_inherit_init_net).
    "net/ipv4/ip_forward": "0",
}
INNER = "inner"
"""In an engine's namespace, the end of the pair whose other end is the firewall's interface."""
_BRIDGE_NETFILTER = ("arptables", "iptables", "ip6tables")


def attachments(topology: Topology) -> Iterator[tuple[str, Interface]]:
    """Yield every interface of the topology with the id of its owner, nodes first."""
    for node in topology.nodes.values():
        yield node.id, node.interface
    for firewall in topology.firewalls.values():
        for interface in firewall.interfaces:
            yield firewall.id, interface


class Wiring:
    """The ``wire`` namespace: it carries frames, and never speaks, filters or judges itself."""

    bridges: Mapping[str, str]
    """Segment id to bridge device."""
    ports: Mapping[tuple[str, str], str]
    """Owner id and its interface's name to the device at the other end."""
    taps: dict[tuple[str, str], int]
    """Of firewalls that are elsewhere, once :meth:`build` has made them: the descriptor of that device."""

    def __init__(
        self,
        topology: Topology,
        wire: Namespace,
        engines: Mapping[tuple[str, str], Namespace],
        elsewhere: Collection[str] = (),
    ) -> None:
        """Lay wires of a topology.

        Args:
            topology: Whose segments and interfaces.
            wire: Where the bridges are.
            engines: By firewall and interface, the namespace that stands between that interface and its wire.
            elsewhere: Firewalls whose interfaces are no devices here: their wires end in tap devices.

        """
        self._topology = topology
        self._wire = wire
        self._engines = engines
        self._elsewhere = frozenset(elsewhere)
        self.taps = {}
        self.bridges = {segment: f"segment{number}" for number, segment in enumerate(topology.segments)}
        self.ports = {
            (owner, interface.name): f"port{number}" for number, (owner, interface) in enumerate(attachments(topology))
        }

    def build(self, owners: Mapping[str, Namespace]) -> None:
        """Make all devices; each interface appears, down, in its owner's namespace. The bridges stay down.

        Raises:
            OSError: The kernel lacks a kind of device.
            pyroute2.NetlinkError: It refuses one.

        """
        self._wire.call(lambda: self._build(owners))

    def set_bridges(self, *, up: bool) -> None:
        """Join the interfaces of every segment, or part them all."""

        def change() -> None:
            with IPRoute() as route:
                for index in self._bridge_indices.values():
                    route.link("set", index=index, state="up" if up else "down")

        self._wire.call(change)

    def close(self) -> None:
        """Let go of the tap devices; they are gone when nobody else holds them."""
        for descriptor in self.taps.values():
            os.close(descriptor)
        self.taps.clear()

    @property
    def devices(self) -> frozenset[str]:
        """The devices it makes in the wire namespace."""
        return frozenset((*self.bridges.values(), *self.ports.values()))

    def _build(self, owners: Mapping[str, Namespace]) -> None:
        write_settings(_SILENT_WIRE)
        for engine in self._engines.values():
            engine.call(lambda: write_settings(_SILENT_WIRE))
        # Built into some kernels and on by default: it would have the wire check and drop malformed IP packets.
        for kind in _BRIDGE_NETFILTER:
            switch = Path(f"/proc/sys/net/bridge/bridge-nf-call-{kind}")
            if switch.exists():
                switch.write_text("0")
        with IPRoute() as route:
            self._bridge_indices = {
                segment: _add_bridge(route, device, self._topology.segments[segment])
                for segment, device in self.bridges.items()
            }
            for owner, interface in attachments(self._topology):
                if owner in self._elsewhere:
                    self._add_tap(route, owner, interface)
                else:
                    self._add_port(route, owner, interface, owners[owner])
                self._attach(route, owner, interface)

    def _add_tap(self, route: IPRoute, owner: str, interface: Interface) -> None:
        device = self.ports[owner, interface.name]
        self.taps[owner, interface.name] = make_tap(device)
        mtu = self._topology.segments[interface.segment].mtu
        route.link("set", index=_index(route, device), txqlen=QUEUE, mtu=mtu)

    def _add_port(self, route: IPRoute, owner: str, interface: Interface, namespace: Namespace) -> None:
        device = self.ports[owner, interface.name]
        mtu = self._topology.segments[interface.segment].mtu
        peer: dict[str, object] = {"ifname": interface.name, "address": interface.mac, "net_ns_fd": namespace.fd}
        peer["mtu"] = mtu
        engine = self._engines.get((owner, interface.name))
        if engine is not None:
            # The wire ends at the engine, which alone holds the way on to the interface of the firewall.
            engine.call(lambda: _add_pair(INNER, peer, mtu))
            peer = {"ifname": interface.name, "net_ns_fd": engine.fd, "mtu": mtu}
        route.link("add", ifname=device, kind="veth", mtu=mtu, peer=peer)

    def _attach(self, route: IPRoute, owner: str, interface: Interface) -> None:
        route.link(
            "set",
            index=_index(route, self.ports[owner, interface.name]),
            master=self._bridge_indices[interface.segment],
            IFLA_IFALIAS=f"{owner} {interface.name} on {interface.segment}",
            state="up",
        )


def _add_pair(device: str, peer: Mapping[str, object], mtu: int) -> None:
    with IPRoute() as route:
        route.link("add", ifname=device, kind="veth", mtu=mtu, peer=peer)


def write_settings(settings: Mapping[str, str]) -> None:
    """Write kernel settings, keys being paths below ``/proc/sys``, in the calling thread's network namespace.

    Raises:
        OSError: The kernel has no such setting, or refuses the value.

    """
    for key, value in settings.items():
        Path("/proc/sys", key).write_text(value, encoding="ascii")


def index_of(route: IPRoute, devices: Iterable[str]) -> dict[str, int]:
    """Return the interface indices of `devices`."""
    return {device: _index(route, device) for device in devices}


def _add_bridge(route: IPRoute, device: str, segment: Segment) -> int:
    # No STP: a port forwards at once. No multicast snooping: a segment hands multicast to everybody, and asks nobody.
    route.link("add", ifname=device, kind="bridge", br_stp_state=0, br_mcast_snooping=0)
    index = _index(route, device)
    route.link("set", index=index, IFLA_IFALIAS=f"segment {segment.id}", mtu=segment.mtu)
    return index


def _index(route: IPRoute, device: str) -> int:
    return int(route.link_lookup(ifname=device)[0])
