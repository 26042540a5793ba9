"""Which firewall this machine is: the one of the inventory all of whose network cards it has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from appliance_image.agent.errors import AgentError
from appliance_image.agent.links import cards
from appliance_image.agent.root import Root
from netpolicy.inputs import read_document

_MOST_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class Identity:
    """A firewall of the inventory."""

    network: str
    firewall: str
    managed_by: str
    signatures: int
    """How many different operators must sign its bundles."""
    interfaces: Mapping[str, str]
    """MAC by name."""


def identify(root: Root) -> Identity:
    """Return which firewall this machine is.

    Raises:
        AgentError: It is none, or more than one, or the inventory cannot be read.

    """
    return choose(inventory(root), cards(root))


def inventory(root: Root) -> list[Identity]:
    """Return the firewalls of the image.

    Raises:
        AgentError: The inventory is missing or malformed.

    """
    try:
        document = read_document(root.inventory, _MOST_BYTES)
        return [
            Identity(
                str(document["network"]),
                str(name),
                str(each["managed_by"]),
                int(each["signatures"]),
                {str(interface): str(mac).lower() for interface, mac in each["interfaces"].items()},
            )
            for name, each in document["firewalls"].items()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as wrong:
        raise AgentError("inventory", f"{root.inventory} is no inventory: {wrong!r}") from wrong


def choose(firewalls: Iterable[Identity], macs: Iterable[str]) -> Identity:
    """Return the one firewall whose cards are all there.

    Raises:
        AgentError: There is none, or more than one.

    """
    present = {mac.lower() for mac in macs}
    known = [each for each in firewalls if each.interfaces and set(each.interfaces.values()) <= present]
    if len(known) == 1:
        return known[0]
    if known:
        raise AgentError("identity", f"these network cards are of {' and '.join(each.firewall for each in known)}")
    seen = ", ".join(sorted(present - {"00:00:00:00:00:00"})) or "none"
    raise AgentError("identity", f"no firewall of the inventory has its network cards here (MAC: {seen})")
