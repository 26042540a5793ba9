"""What an attempt is made of: certificates, contexts, and what is said instead of TLS."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from cryptography.x509.oid import ExtendedKeyUsageOID

from conformance.application.book import Exchange
from conformance.inspection.servers import Lax
from conformance.pki import Identities
from conformance.pki.identities import Identity
from netpolicy.pki.authority import Span
from netpolicy.topology.ends import End
from netpolicy.topology.model import Node

GOOD = frozenset[str]()
# With Suricata 7, what is absent has signatures of its own.
CLIENT = frozenset({"tls-client-certificate", "tls-client-no-certificate"})
SERVER = frozenset({"tls-server-certificate", "tls-server-no-certificate"})
VERSION, SUITE, ALPN = (frozenset({f"tls-{what}"}) for what in ("version", "cipher-suite", "alpn"))
NAME = frozenset({"tls-name", "tls-no-name"})
GOES_ON = frozenset({"tls-client-goes-on", "tls-client-hello-length"})
"""What is more than a ClientHello may raise them, whatever else stops it."""
NOT_TLS = frozenset(
    f"tls-{what}"
    for what in ("first-bytes", "client-hello", "client-hello-split", "other-protocol-client", "other-protocol-server")
)
REPEATED = "tls-early-again"
AGAIN = frozenset({REPEATED, "tls-early-segments"})
"""Who hears no answer says it again."""
SERVER_FIRST = frozenset({"tls-server-first"})
SECOND_HELLO = frozenset({"tls-renegotiation-hello"})


AWKWARD = (1, 2, 3, 4, 5, 6, 9, 10, 11, 43, 44, 76, 100, 200)
"""Offsets into a ClientHello: inside the record header, the handshake header, version, random, session, suites."""


@dataclass(frozen=True, slots=True)
class Again:
    """A second handshake on the same connection (renegotiation)."""

    server: Lax
    identity: Identity
    """Of the client, which is OpenSSL's own."""
    suites: str
    """That it offers."""
    asked: bool = False
    """Whether the server asks for it; it must be obedient."""


@dataclass(frozen=True, slots=True)
class Case:
    """One attempt."""

    label: str
    stopped_by: frozenset[str]
    """The kinds of signature of which one must stop it; none for what must pass."""
    context: ssl.SSLContext | None = None
    """Of a client that speaks TLS."""
    server: Lax | None = None
    """None: one that does not speak TLS."""
    name: str | None = None
    """What the client asks for (SNI)."""
    says: bytes = b""
    """What the client says before TLS, or instead of it."""
    request: bytes | None = None
    """What it says inside TLS, if not a request of the application."""
    greeting: bytes = b""
    """What the server says first."""
    patient: bool = True
    """Whether the client hears that before it speaks."""
    cuts: tuple[int, ...] = ()
    """Where the client cuts its first flight into segments."""
    early: bytes = b""
    """What follows the client's first flight at once, before anything was answered."""
    twice: bool = False
    """The client comes back and resumes its session; that must be stopped, the first time must not."""
    again: Again | None = None
    """What is read before a second handshake may be read; nothing may be after it."""
    also: frozenset[str] = field(default_factory=frozenset)
    """Kinds of signature that may be raised as well."""


BANNERS = {
    "an SMTP greeting": b"220 mail.example ESMTP ready\r\n",
    "an FTP greeting": b"220 (vsFTPd 3.0.3)\r\n",
    "a Telnet negotiation": b"\xff\xfd\x18\xff\xfd\x20\xff\xfd\x23\xff\xfd\x27",
    "an SSH banner": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "a MySQL greeting": b"\x4a\x00\x00\x00\x0a8.0.36\x00" + bytes(64),
    "a greeting of no known protocol": b"\x80\x81 who are you?\r\n",
    "STARTTLS": b"220 mail.example ESMTP ready\r\n",
}
REQUESTS = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "SMTP": b"EHLO a.example\r\nMAIL FROM:<a@a.example>\r\n",
    "FTP": b"USER anonymous\r\nPASS a@a.example\r\n",
    "Telnet": b"\xff\xfb\x18\xff\xfb\x1f\xff\xfd\x01root\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "RDP": bytes.fromhex("0300002b26e00000000000436f6f6b69653a206d737473686173683d610d0a0100080003000000"),
    "SMB": bytes.fromhex("00000085ff534d4272000000001853c8000000000000000000000000fffffffe00000000") + bytes(97),
    "PostgreSQL": b"\x00\x00\x00\x25\x00\x03\x00\x00user\x00a\x00database\x00registry\x00\x00",
    "LDAP": bytes.fromhex("300c020101600702010304008000"),
    "one byte": b"A",
    "a forged handshake header": bytes.fromhex("1603010200") + b"A" * 400,
    "a forged handshake of another kind": bytes.fromhex("16030300400200003c0303") + b"A" * 400,
    "TLS alert": bytes.fromhex("15030300020228"),
    "TLS application data": b"\x17\x03\x03\x00\x40" + bytes(64),
}


PROTOCOLS = (
    *("smtp", "http", "http2", "ftp", "telnet", "telnet-negotiation", "ssh", "rdp", "smb", "pgsql", "mysql"),
    *("ldap-tcp", "websocket", "imap", "pop3", "rfb", "tds", "dcerpc-tcp"),
)


def forge(identities: Identities, source: Node) -> dict[str, Identity]:
    """Return certificates with an end's own names that are not its own; no id begins with a dot."""
    day = timedelta(days=1)
    now = identities.now
    return {
        "a certificate of another authority of the same name": identities.forge(
            source, f".foreign-{source.id}", foreign=True
        ),
        "an expired certificate": identities.forge(
            source, f".expired-{source.id}", span=Span(now - 2 * day, now - day)
        ),
        "a certificate that is not valid yet": identities.forge(
            source, f".future-{source.id}", span=Span(now + day, now + 2 * day)
        ),
        "a revoked certificate": identities.forge(source, f".revoked-{source.id}"),
        "a certificate for mail": identities.forge(
            source, f".mail-{source.id}", usage=(ExtendedKeyUsageOID.EMAIL_PROTECTION,)
        ),
    }


def strangers(identities: Identities, exchange: Exchange) -> Iterator[tuple[str, End]]:
    """Yield other ends than those of an exchange, by how their certificates are wrong for it."""
    nodes = identities.topology.nodes.values()
    ends = {exchange.source.id, exchange.destination.id}
    for label, found in (
        ("the certificate of another role", [each for each in nodes if each.role != exchange.source.role]),
        (
            "the certificate of the same role at another site",
            [each for each in nodes if each.role == exchange.source.role and each.site != exchange.source.site],
        ),
        (
            "the certificate of another of its role and site",
            [each for each in nodes if each.role == exchange.source.role and each.site == exchange.source.site],
        ),
    ):
        strange = next((each for each in found if each.id not in ends), None)
        if strange is not None:
            yield label, strange


def client(
    identity: Identity | None,
    alpn: str | None,
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
    *,
    suites: str = "ALL:@SECLEVEL=0",
) -> ssl.SSLContext:
    """Return a client that takes any server."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    found.check_hostname = False
    found.verify_mode = ssl.CERT_NONE
    found.set_ciphers("ECDHE+AESGCM" if version >= ssl.TLSVersion.TLSv1_2 and suites.startswith("ALL") else suites)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # old versions are what must be stopped
        found.minimum_version = found.maximum_version = version
    if alpn is not None:
        found.set_alpn_protocols([alpn])
    if identity is not None:
        found.load_cert_chain(identity.chain, identity.key)
    return found
