"""Identifiers of the emitted ruleset."""

from __future__ import annotations

import re

from netpolicy.reasons import DenyReason, deny_counter, flow_counter

TABLE = "netpolicy"
GUARD_TABLE = "netpolicy_guard"
FRAME_TABLE = "netpolicy_frames"
"""Of family netdev."""

PREFIXES = {4: "ip", 6: "ip6"}
"""Of expressions about a family's header."""
ADDRESS_TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}

ACCEPTED_MARK = 0x4E000000
"""Set in the packet mark by every accepting rule of the main table; the guard table passes nothing without it."""
MARK_MASK = 0xFF000000


def identifier(text: str) -> str:
    """Return `text` as nft writes identifiers: everything but letters, digits and '_' becomes '_'."""
    return re.sub(r"[^A-Za-z0-9_]", "_", text)


def flow_name(flow: str) -> str:
    """Return the name that a flow's chain and its counter of new connections share."""
    return flow_counter(flow)


def onward_name(flow: str) -> str:
    """Return the name of the chain that judges what the relay sends of a flow."""
    return f"onward_{identifier(flow)}"


def deny_chain(reason: DenyReason, protocol: str | None = None) -> str:
    """Return the name of the chain that logs, counts and drops; it is that of the counter."""
    return deny_counter(reason, protocol)


class PairNames:
    """Names for things that belong to one interface or to an ordered pair of them, unique whatever they are called."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, str, str], str] = {}

    def get(self, kind: str, first: str, second: str = "") -> str:
        """Return the name of a thing of `kind`, always the same one for the same arguments."""
        key = (kind, first, second)
        if key not in self._names:
            wanted = "_".join(identifier(part) for part in key if part)
            taken = set(self._names.values())
            name, number = wanted, 2
            while name in taken:
                name, number = f"{wanted}_{number}", number + 1
            self._names[key] = name
        return self._names[key]
