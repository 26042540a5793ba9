"""How an engine stands in the way: the card and one end of a pair in a namespace of its own, the other end here.

Nothing but the engine joins the two. The namespace has no addresses, no IPv6 and no rules, and the card cannot be
reached from the kernel that routes: without an engine no frame passes, by construction.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from appliance_image.agent.errors import AgentError
from appliance_image.agent.namespaces import call_in
from appliance_image.agent.offload import switch_off
from appliance_image.agent.programs import run
from appliance_image.agent.root import Root

INNER = "inner"
"""The end of the pair on the engine's side, as engines' configurations call it."""
_SILENT = {
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
    "net/ipv4/ip_forward": "0",
}


def lay(root: Root, interfaces: Mapping[str, str], engines: Iterable[str]) -> None:
    """Move the cards of interfaces with an engine behind it; what is so already stays.

    Args:
        root: Where namespaces are named.
        interfaces: All of the firewall's; MAC by name. Cards have these names already.
        engines: Those with an engine.

    Raises:
        AgentError: The kernel refuses.

    """
    wanted = set(engines)
    for interface in sorted(wanted):
        if not root.namespace(interface).exists():
            _move(root, interface, interfaces[interface])
        try:
            call_in(root.namespace(interface), partial(switch_off, (interface, INNER)))
        except OSError as refused:
            raise AgentError("wire", f"{interface}: {refused}") from refused
    for interface in set(interfaces) - wanted:
        if root.namespace(interface).exists():
            _return(root, interface)
    switch_off(interfaces)


def laid(root: Root, interfaces: Iterable[str], engines: Iterable[str]) -> bool:
    """Tell whether the interfaces with an engine, and no others, are behind a namespace of their own."""
    wanted = set(engines)
    return all(root.namespace(each).exists() == (each in wanted) for each in interfaces)


def _move(root: Root, interface: str, mac: str) -> None:
    namespace = f"{root.wire}{interface}"
    run(root, ["ip", "link", "set", "dev", interface, "down"], quiet=True)
    run(root, ["ip", "netns", "add", namespace], quiet=True)
    try:
        call_in(root.namespace(interface), _silence)
        run(root, ["ip", "link", "set", "dev", interface, "netns", namespace], quiet=True)
        here = str(os.getpid())
        pair = ["link", "add", INNER, "type", "veth", "peer", "name", interface, "address", mac, "netns", here]
        run(root, ["ip", "-netns", namespace, *pair], quiet=True)
        for device in (INNER, interface):
            run(root, ["ip", "-netns", namespace, "link", "set", "dev", device, "up"], quiet=True)
    except OSError as refused:
        raise AgentError("wire", f"{interface}: {refused}") from refused


def _return(root: Root, interface: str) -> None:
    """Give an interface that has no engine any more its card back."""
    namespace = f"{root.wire}{interface}"
    here = str(os.getpid())
    run(root, ["ip", "-netns", namespace, "link", "del", INNER], quiet=True)
    run(root, ["ip", "-netns", namespace, "link", "set", "dev", interface, "down"], quiet=True)
    run(root, ["ip", "-netns", namespace, "link", "set", "dev", interface, "netns", here], quiet=True)
    run(root, ["ip", "netns", "del", namespace], quiet=True)


def _silence() -> None:
    for key, value in _SILENT.items():
        Path("/proc/sys", key).write_text(value, encoding="ascii")
