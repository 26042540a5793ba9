"""Mutual TLS 1.3 and nothing else (RFC 8446, RFC 9325), and who the peer is."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from appliance_image.management.errors import LinkError
from appliance_image.management.protocol import ALPN
from appliance_image.management.transport import Secured


@dataclass(frozen=True, slots=True)
class Files:
    """An identity: a directory as `netpolicy pki` and the state partition have it."""

    directory: Path

    def context(self, *, server: bool) -> ssl.SSLContext:
        """Return a context with the files as they are now: one for each connection sees every new revocation list.

        Raises:
            LinkError: A file is missing or wrong.

        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
        # Tickets would carry a session past a revocation.
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        if server:
            context.num_tickets = 0
        context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_CRL_CHECK_CHAIN
        context.set_alpn_protocols([ALPN])
        try:
            context.load_verify_locations(self.directory / "trust.pem")
            context.load_verify_locations(self.directory / "crl.pem")
            context.load_cert_chain(self.directory / "chain.pem", self.directory / "key.pem")
        except (OSError, ssl.SSLError) as wrong:
            raise LinkError(f"the identity in {self.directory} cannot be used: {wrong}") from None
        return context


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, by a certificate that was verified."""

    uri: str
    serial: str
    """Its certificate's serial number, hexadecimal."""


def peer_of(layer: Secured) -> Peer:
    """Return who the peer is, after its handshake.

    Raises:
        LinkError: Its certificate does not name exactly one URI, it did not agree on the protocol, or it resumed.

    """
    tls = layer.object
    certificate = tls.getpeercert() or {}
    names: object = certificate.get("subjectAltName", ())
    uris = [str(value) for kind, value in names if kind == "URI"] if isinstance(names, tuple) else []
    if len(uris) != 1:
        raise LinkError(f"the peer's certificate names {len(uris)} URIs, not one")
    if tls.selected_alpn_protocol() != ALPN:
        raise LinkError(f"the peer did not agree on {ALPN}")
    if tls.session_reused or tls.version() != "TLSv1.3":
        raise LinkError("the peer resumed a session")
    return Peer(uris[0], str(certificate.get("serialNumber", "")).lower())
