"""The files of a firewall's relay."""

from __future__ import annotations

from collections.abc import Iterable

from netpolicy.intent.model import FirewallIntent
from netpolicy.relay.configuration import CONFIGURATION, DIRECTORY, IDENTITY, client_map, emit_configuration, server_map
from netpolicy.relay.identity import IDENTITY_LUA

__all__ = ["CONFIGURATION", "DIRECTORY", "IDENTITY", "emit_relay"]


def emit_relay(intent: FirewallIntent) -> dict[str, str]:
    """Return the files of :data:`DIRECTORY` by name; none for a firewall without a flow to relay.

    The operator adds ``tls/chain.pem`` (the firewall's certificate, then its issuer), ``tls/chain.pem.key``,
    ``tls/trust.pem`` (the root) and ``tls/crl.pem`` (the current revocation lists of all authorities).
    """
    if not intent.relayed:
        return {}
    files = {CONFIGURATION: emit_configuration(intent), IDENTITY: IDENTITY_LUA}
    for relayed in intent.relayed:
        files[client_map(relayed.flow)] = _map((peer.address, peer.uri) for peer in relayed.clients)
        files[server_map(relayed.flow)] = _map((peer.address, peer.name) for peer in relayed.servers)
    return files


def _map(entries: Iterable[tuple[object, str]]) -> str:
    return "".join(f"{address} {value}\n" for address, value in entries)
