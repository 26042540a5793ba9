"""Lists that rules refer to: pinned certificates and names, one value a line, in Base64 as Suricata reads them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable

from ids_rules.tls_policy import clients_and_servers, name_list, pinned_list
from netpolicy.intent.model import FirewallIntent
from netpolicy.topology.model import Assurance


def emit_datasets(intent: FirewallIntent) -> dict[str, str]:
    """Return the files by name.

    The list of an end of which no certificate is pinned is empty, so that nobody passes for it.
    """
    files: dict[str, str] = {}
    # Of a relayed flow an engine sees two connections: to this firewall, and from it to the next one or the server.
    asked = {each.flow: {intent.name, *(peer.name for peer in each.servers)} for each in intent.relayed}
    for flow in intent.flows:
        clients, servers = clients_and_servers(intent, flow)
        if flow.assurance is Assurance.INSPECT:
            for peer in (*clients, *servers):
                files[f"{pinned_list(peer.id)}.lst"] = certificate_list(peer.fingerprints)
        files[f"{name_list(flow.id)}.lst"] = _lines(asked.get(flow.id) or {peer.name for peer in servers})
    return files


def certificate_list(fingerprints: Iterable[str]) -> str:
    """Return a list of certificates, given by SHA-1, as ``tls.cert_fingerprint`` has them: bytes joined by colons."""
    return _lines(":".join(each[at : at + 2] for at in range(0, len(each), 2)) for each in fingerprints)


def _lines(values: Iterable[str]) -> str:
    return "".join(f"{b64encode(value.encode()).decode()}\n" for value in sorted(values))
