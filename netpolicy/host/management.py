"""Who may ask a firewall's own endpoint, which stands behind its relay: ``management.json``."""

from __future__ import annotations

import json

from netpolicy.intent.model import FirewallIntent

MANAGEMENT = "management.json"
_FORMAT = 1


def emit_management(intent: FirewallIntent) -> dict[str, str]:
    """Return the file by name; none for a firewall at which no relayed flow ends.

    The endpoint meets its own firewall's relay, wherever the connection came from: who asks is known only from what is
    said inside, end to end, and the endpoint holds that against this file.
    """
    flows = {flow.id: flow for flow in intent.flows}
    ending = [relayed for relayed in intent.relayed if relayed.local]
    if not ending:
        return {}
    document = {
        "format": _FORMAT,
        "firewall": intent.id,
        "uri": intent.uri,
        "flows": [
            {
                "flow": relayed.flow,
                "alpn": flows[relayed.flow].alpn,
                "prologue": flows[relayed.flow].prologue,
                "ports": [port for ports in flows[relayed.flow].ports for port in range(ports.first, ports.last + 1)],
                "families": sorted({address.version for address in relayed.local}),
                "operators": list(relayed.senders),
            }
            for relayed in ending
        ],
    }
    return {MANAGEMENT: json.dumps(document, indent=1, ensure_ascii=False) + "\n"}
