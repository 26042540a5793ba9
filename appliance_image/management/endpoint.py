"""What a bundle says of the management of its firewall: ``management.json``, which `compile` makes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appliance_image.management.errors import RefusedError
from appliance_image.management.protocol import ALPN

FILE = "management.json"
_FORMAT = 1
MOST_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Access:
    """A flow whose operators may manage this firewall."""

    flow: str
    ports: tuple[int, ...]
    prologue: bytes
    """With what each side begins; may be empty."""
    operators: frozenset[str]
    """The URIs in their certificates."""
    families: frozenset[int]
    """Of Internet protocols: 4, 6."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Who may manage a firewall, and where."""

    firewall: str
    uri: str
    """Its own, and so that of its relay."""
    flows: tuple[Access, ...]

    def at(self, port: int) -> Access | None:
        """Return the flow that is served at a port."""
        return next((flow for flow in self.flows if port in flow.ports), None)

    def sockets(self) -> frozenset[tuple[str, int]]:
        """Return the addresses and ports to listen at: on the loopback device, where only the relay comes from."""
        return frozenset(
            ("127.0.0.1" if family == 4 else "::1", port)
            for flow in self.flows
            for family in flow.families
            for port in flow.ports
        )


def read(text: bytes) -> Endpoint:
    """Return what ``management.json`` says; flows of other protocols than this one are left out.

    Raises:
        RefusedError: It is none (``endpoint``).

    """
    try:
        document = json.loads(text)
        known = document["format"] == _FORMAT
        flows = tuple(_access(flow) for flow in document["flows"] if flow["alpn"] == ALPN) if known else ()
        found = Endpoint(str(document["firewall"]), str(document["uri"]), flows)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as wrong:
        raise RefusedError("endpoint", f"{FILE} of the bundle cannot be read: {wrong!r}") from None
    if not known:
        raise RefusedError("endpoint", f"{FILE} of the bundle has another format than {_FORMAT}")
    return found


def _access(flow: Mapping[str, Any]) -> Access:
    ports, families = (tuple(int(each) for each in flow[name]) for name in ("ports", "families"))
    if not all(0 < port < 1 << 16 for port in ports) or not set(families) <= {4, 6}:
        raise ValueError(f"ports {ports} of families {families}")
    return Access(
        str(flow["flow"]),
        ports,
        str(flow["prologue"] or "").encode("ascii"),
        frozenset(str(uri) for uri in flow["operators"]),
        frozenset(families),
    )
