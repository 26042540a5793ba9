"""More connections, or larger ones, than a flow has use for."""

from __future__ import annotations

from collections.abc import Iterator

from ids_rules.signature import Action, Classtype, Signature
from ids_rules.tls_policy import flow_group
from netpolicy.intent.model import FirewallIntent

MOST_BYTES = 4 * 1024 * 1024
"""Of one connection in one direction. A message of the application has 16 KiB."""
_NEAR = 0.8
"""Of a flow's rate from which on it is said, so that it is known before connections are refused."""


def oddities(intent: FirewallIntent) -> Iterator[Signature]:
    """Yield the signatures about sizes and rates of every flow that crosses a firewall."""
    for flow in intent.flows:
        clients, servers, ports = (f"${flow_group(flow.id, what)}" for what in ("CLIENTS", "SERVERS", "PORTS"))
        header = f"tcp {clients} any -> {servers} {ports}"
        for side, technique in (("toserver", "T1048"), ("toclient", "T1030")):
            yield Signature(
                id=f"size-{side}",
                action=Action.ALERT,
                header=header,
                message=f"more than {MOST_BYTES} bytes in one connection {side}",
                match=("flow:established", f"flow.bytes_{side}:>{MOST_BYTES}"),
                classtype=Classtype.MISC_ATTACK,
                technique=technique,
                reference=f"attack.mitre.org/techniques/{technique}",
                flow=flow.id,
                basis=flow.basis,
            )
        if flow.limits.rate is not None:
            near = max(1, int(flow.limits.rate * _NEAR))
            yield Signature(
                id="rate",
                action=Action.ALERT,
                header=header,
                message=f"near or beyond {flow.limits.rate} new connections per second",
                match=("flow:to_server", "flags:S,12", f"threshold:type both, track by_dst, count {near}, seconds 1"),
                classtype=Classtype.ATTEMPTED_DOS,
                technique="T1499.002",
                reference="attack.mitre.org/techniques/T1499/002",
                flow=flow.id,
                basis=flow.basis,
            )
