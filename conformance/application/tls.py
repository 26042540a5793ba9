"""Mutual TLS as the application wants it (NIST SP 800-52r2, RFC 9325), and what OpenSSL leaves to the application."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from conformance.pki.identities import Identity
from netpolicy.topology.model import Assurance, Flow

HANDSHAKE_SECONDS = 3.0

_VERSIONS = {Assurance.INSPECT: ssl.TLSVersion.TLSv1_2, Assurance.TERMINATE: ssl.TLSVersion.TLSv1_3}
_NAMES = {Assurance.INSPECT: "TLSv1.2", Assurance.TERMINATE: "TLSv1.3"}
_CIPHERS = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256"


class PeerError(Exception):
    """The handshake has succeeded, and still the peer must not be spoken with."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On which a flow permits a client and a server to speak."""

    assurance: Assurance
    """How mutual TLS is enforced, which decides the version."""
    alpn: str
    service: str
    affair: str

    @classmethod
    def of(cls, flow: Flow, alpn: str) -> Self:
        """Return the terms of a flow whose service has `alpn`."""
        return cls(flow.assurance, alpn, flow.service, flow.affair)


def context(identity: Identity, assurances: frozenset[Assurance], *alpn: str, server: bool) -> ssl.SSLContext:
    """Return a context with the files as they are now: a new one for each connection sees every new revocation list.

    Args:
        identity: Own certificate, key, trust and revocation lists.
        assurances: INSPECT is TLS 1.2 and nothing else, TERMINATE is TLS 1.3 and nothing else.
        alpn: The only protocols that are offered or taken.
        server: Which side.

    """
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    found.check_hostname = False  # ends are known by the URI in their certificate, see check_peer()
    found.verify_mode = ssl.CERT_REQUIRED
    versions = sorted(_VERSIONS[assurance] for assurance in assurances)
    found.minimum_version, found.maximum_version = versions[0], versions[-1]
    found.set_ciphers(_CIPHERS)
    # Tickets would carry a session past a revocation.
    found.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if server:
        found.num_tickets = 0
    found.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_CRL_CHECK_CHAIN
    found.load_verify_locations(identity.trust)
    found.load_verify_locations(identity.crl)
    found.load_cert_chain(identity.chain, identity.key)
    found.set_alpn_protocols(alpn)
    return found


def check_peer(connection: ssl.SSLSocket, allowed: Mapping[str, Sequence[Terms]]) -> tuple[str, Terms]:
    """Return the peer's URI and terms when it is one of those allowed, and they are kept.

    Args:
        connection: After its handshake.
        allowed: By URI, the terms of the flows with that peer; a relay may stand for several.

    Raises:
        PeerError: Another role, protocol or TLS version, or a resumed session.

    """
    certificate = connection.getpeercert() or {}
    names: object = certificate.get("subjectAltName", ())
    uris = [str(value) for kind, value in names if kind == "URI"] if isinstance(names, tuple) else []
    uri = next((each for each in uris if each in allowed), None)
    if uri is None:
        raise PeerError(f"the peer is {', '.join(uris) or 'nobody'}, and no flow permits it here")
    agreed = connection.selected_alpn_protocol()
    terms = next((each for each in allowed[uri] if each.alpn == agreed), None)
    if terms is None:
        wanted = " or ".join(sorted({f"'{each.alpn}'" for each in allowed[uri]}))
        raise PeerError(f"the peer did not agree on {wanted}")
    if connection.version() != _NAMES[terms.assurance]:
        raise PeerError(f"the peer speaks {connection.version()}, and its flow demands {_NAMES[terms.assurance]}")
    if connection.session_reused:
        raise PeerError("the peer resumed a session")
    return uri, terms
