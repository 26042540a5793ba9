"""Who an end is in its certificate."""

from __future__ import annotations

from netpolicy.topology.ends import End
from netpolicy.topology.model import Node, Topology


def identity_uri(topology: Topology, end: End) -> str:
    """Return the URI in an end's certificate (RFC 5280, 4.2.1.6); by default one of network, role and name."""
    if end.identity is not None:
        return end.identity
    role = end.role if isinstance(end, Node) else "firewall"
    return f"urn:netpolicy:{topology.id}:{role}:{end.id}"


def server_name(topology: Topology, end: End) -> str:
    """Return the DNS name in an end's certificate, which clients send as SNI (RFC 6066, 3) and verify.

    ``.internal`` is reserved for private use (ICANN board, 2024-07-29), so nothing public can ever answer to it.
    """
    return f"{end.id}.{topology.id}.internal"
