"""What the engines say of one connection."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from conformance.lab.engine import Engine
from netpolicy.topology.model import Address

Ends = tuple[Address, int, Address, int]
"""Client and server, address and port."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert about a connection."""

    engine: str
    """Firewall and interface; or firewall and ``relay``."""
    sid: int
    """0 for what a relay says."""
    signature: str
    """Its kind."""
    flow: str | None
    blocked: bool

    def __str__(self) -> str:
        return f"{self.signature} (sid {self.sid})" if self.sid else f"{self.signature} at {self.engine}"


@dataclass(slots=True)
class Watch:
    """Reads the events of several engines as they come."""

    engines: dict[str, Engine]
    _offsets: dict[str, int] = field(default_factory=dict)
    _alerts: dict[Ends, list[Alert]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def alerts(self, ends: Ends) -> list[Alert]:
        """Return the alerts about a connection so far."""
        with self._lock:
            for name, engine in self.engines.items():
                self._read(name, engine)
            return list(self._alerts.get(ends, ()))

    def _read(self, name: str, engine: Engine) -> None:
        offset = self._offsets.get(name, 0)
        for event, after in engine.events(offset=offset):
            offset = after
            if event["event_type"] == "alert" and "src_port" in event:
                alert = _alert(name, event)
                for ends in _both_ways(event):
                    self._alerts.setdefault(ends, []).append(alert)
        self._offsets[name] = offset


def _alert(name: str, event: dict[str, Any]) -> Alert:
    said = event["alert"]
    facts = said.get("metadata", {})
    return Alert(
        engine=name,
        sid=said["signature_id"],
        signature=facts.get("signature", [""])[0],
        flow=facts.get("flow", [None])[0],
        blocked=said["action"] == "blocked",
    )


def _both_ways(event: dict[str, Any]) -> tuple[Ends, Ends]:
    one = (ip_address(event["src_ip"]), int(event["src_port"]))
    other = (ip_address(event["dest_ip"]), int(event["dest_port"]))
    return (*one, *other), (*other, *one)
