"""Network cards: found by their MAC, and named as the topology names them."""

from __future__ import annotations

import fcntl
import json
import socket
import struct
from collections.abc import Mapping

from appliance_image.agent.errors import AgentError
from appliance_image.agent.programs import run
from appliance_image.agent.root import Root

_TEMPORARY = "np-swap"
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1
"""SIOCGIFFLAGS and SIOCSIFFLAGS of linux/sockios.h, IFF_UP of linux/if.h: any socket takes them (netdevice(7))."""
_REQUEST = struct.Struct("16sH22x")


def cards(root: Root) -> dict[str, str]:
    """Return the names of this namespace's Ethernet devices by MAC, in lower case.

    Raises:
        AgentError: Two have the same MAC, or the kernel does not tell.

    """
    found: dict[str, str] = {}
    for link in json.loads(run(root, ["ip", "-json", "link", "show"]) or "[]"):
        if link.get("link_type") != "ether":
            continue
        mac, name = str(link["address"]).lower(), str(link["ifname"])
        if mac in found:
            raise AgentError("identity", f"{found[mac]} and {name} have the same MAC {mac}")
        found[mac] = name
    return found


def name_cards(root: Root, interfaces: Mapping[str, str]) -> None:
    """Give the cards of a firewall its interfaces' names; they are down before, and stay down.

    Args:
        root: Where programs are.
        interfaces: MAC by name.

    Raises:
        AgentError: A card is missing, or the kernel refuses.

    """
    present = cards(root)
    wrong = {}
    for name, mac in interfaces.items():
        if mac.lower() not in present:
            raise AgentError("identity", f"no network card has the MAC {mac} of interface {name}")
        if present[mac.lower()] != name:
            wrong[name] = present[mac.lower()]
    # In two steps, as one may have the name of another.
    for number, device in enumerate(wrong.values()):
        run(root, ["ip", "link", "set", "dev", device, "down"], quiet=True)
        run(root, ["ip", "link", "set", "dev", device, "name", f"{_TEMPORARY}{number}"], quiet=True)
    for number, name in enumerate(wrong):
        run(root, ["ip", "link", "set", "dev", f"{_TEMPORARY}{number}", "name", name], quiet=True)


def take_down() -> None:
    """Have every network device of this namespace down but the loopback: what is left to do where no process begins.

    Raises:
        OSError: The kernel refuses for one; the others are down.

    """
    refused: OSError | None = None
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as handle:
        for _, name in socket.if_nameindex():
            if name == "lo":
                continue
            try:
                _, flags = _REQUEST.unpack(fcntl.ioctl(handle, _GET_FLAGS, _REQUEST.pack(name.encode(), 0)))
                fcntl.ioctl(handle, _SET_FLAGS, _REQUEST.pack(name.encode(), flags & ~_UP))
            except OSError as failed:
                refused = failed
    if refused is not None:
        raise refused
