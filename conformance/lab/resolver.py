"""Names inside the lab: every node and firewall resolves in both families, and nothing asks the network."""

from __future__ import annotations

from pathlib import Path

from netpolicy.topology.model import Address, Topology

OVERLAYS = {"hosts": "/etc/hosts", "nsswitch.conf": "/etc/nsswitch.conf", "resolv.conf": "/etc/resolv.conf"}
"""Generated file to the file that it covers in the mount namespace of a command."""


def write_resolver(topology: Topology, directory: Path) -> None:
    """Write the files of :data:`OVERLAYS` to `directory`."""
    lines = ["127.0.0.1 localhost", "::1 localhost"]
    for node in topology.nodes.values():
        lines.extend(_lines(node.id, node.interface.addresses))
    for firewall in topology.firewalls.values():
        for interface in firewall.interfaces:
            lines.extend(_lines(firewall.id, interface.addresses))
    contents = {
        "hosts": "\n".join([*lines, ""]),
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n",
        "resolv.conf": "# The lab has no name servers.\n",
    }
    for name in OVERLAYS:
        (directory / name).write_text(contents[name], encoding="utf-8")


def _lines(name: str, addresses: tuple[Address, ...]) -> list[str]:
    return [f"{address} {name}" for address in addresses]
