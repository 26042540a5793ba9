"""What is tried on the port of an inspected flow, and which signature must stop it."""

from __future__ import annotations

import os
import ssl
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from cryptography.x509.oid import ExtendedKeyUsageOID

from conformance.application.book import Exchange
from conformance.pki import Identities
from conformance.pki.authority import Span
from conformance.pki.identities import Identity
from netpolicy.topology.ends import End
from netpolicy.topology.model import Assurance, Node

GOOD = frozenset[str]()
CLIENT, SERVER = frozenset({"tls-client-certificate"}), frozenset({"tls-server-certificate"})
VERSION, SUITE, NAME, ALPN = (frozenset({f"tls-{what}"}) for what in ("version", "cipher-suite", "name", "alpn"))
NOT_TLS = frozenset({"tls-first-bytes", "tls-client-hello", "tls-other-protocol-client", "tls-other-protocol-server"})
SERVER_FIRST = frozenset({"tls-server-first"})

_AWKWARD = (1, 2, 3, 4, 5, 6, 9, 10, 11, 43, 44, 76, 100, 200)
"""Offsets into a ClientHello: inside the record header, the handshake header, version, random, session, suites."""


@dataclass(frozen=True, slots=True)
class Lax:
    """What the tolerant server is like."""

    identity: Identity
    options: tuple[str, ...] = ()


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
    greeting: bytes = b""
    """What the server says first."""
    cuts: tuple[int, ...] = ()
    """Where the client cuts its first flight into segments."""
    twice: bool = False
    """The client comes back and resumes its session; that must be stopped, the first time must not."""
    also: frozenset[str] = field(default_factory=frozenset)
    """Kinds of signature that may be raised as well."""


_BANNERS = {
    "an SMTP greeting": b"220 mail.example ESMTP ready\r\n",
    "an FTP greeting": b"220 (vsFTPd 3.0.3)\r\n",
    "a Telnet negotiation": b"\xff\xfd\x18\xff\xfd\x20\xff\xfd\x23\xff\xfd\x27",
    "an SSH banner": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "a MySQL greeting": b"\x4a\x00\x00\x00\x0a8.0.36\x00" + bytes(64),
    "a greeting of no known protocol": b"\x80\x81 who are you?\r\n",
    "STARTTLS": b"220 mail.example ESMTP ready\r\n",
}
_REQUESTS = {
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


class Cases:
    """Makes the cases of exchanges; all certificates are made when it is, by one thread."""

    def __init__(self, identities: Identities, exchanges: list[Exchange]) -> None:
        self._identities = identities
        sources = {each.source.id: each.source for each in exchanges}
        self._forged = {source.id: _forge(identities, source) for source in sources.values()}
        identities.revoke(*(forged["a revoked certificate"] for forged in self._forged.values()))

    def of(self, exchange: Exchange) -> Iterator[Case]:
        """Yield what is tried against a tolerant server; every kind of server is one that takes anything."""
        own = self._identities.of(exchange.source)
        right = Lax(self._identities.of(exchange.destination))
        if exchange.flow.assurance is Assurance.TERMINATE:
            newest = _client(own, exchange.alpn, ssl.TLSVersion.TLSv1_3)
            yield Case("both certificates", GOOD, newest, right, exchange.name)
            yield Case("TLS 1.2", VERSION, _client(own, exchange.alpn), right, exchange.name, also=SUITE)
            yield from _old_versions(exchange, own, right)
            yield from _names(exchange, own, right, ssl.TLSVersion.TLSv1_3)
            yield from _instead(exchange, newest, right)
            return
        good = _client(own, exchange.alpn)
        yield Case("both certificates", GOOD, good, right, exchange.name)
        yield from self._certificates(exchange, right)
        yield from _suites(exchange, own, right)
        yield from _old_versions(exchange, own, right)
        yield from _names(exchange, own, right, ssl.TLSVersion.TLSv1_2)
        yield from _instead(exchange, good, right)
        for cut in _AWKWARD:
            nobody = _client(None, exchange.alpn)
            label = f"no certificate, hello cut at {cut}"
            yield Case(label, CLIENT | NOT_TLS, nobody, right, exchange.name, cuts=(cut,))

    def _certificates(self, exchange: Exchange, right: Lax) -> Iterator[Case]:
        name, alpn = exchange.name, exchange.alpn
        yield Case("no certificate", CLIENT, _client(None, alpn), right, name)
        not_asked = Lax(right.identity, ("-verify_quiet",))
        yield Case("no certificate, verification quiet", CLIENT, _client(None, alpn), not_asked, name)
        for label, identity in self._forged[exchange.source.id].items():
            yield Case(label, CLIENT, _client(identity, alpn), right, name)
        for label, end in _strangers(self._identities, exchange):
            strange = self._identities.of(end)
            yield Case(label, CLIENT, _client(strange, alpn), right, name)
            yield Case(
                f"{label}, at the server",
                SERVER,
                _client(self._identities.of(exchange.source), alpn),
                Lax(strange),
                name,
                also=CLIENT,
            )
        for label, identity in self._forged[exchange.source.id].items():
            own = _client(self._identities.of(exchange.source), alpn)
            yield Case(f"{label}, at the server", SERVER, own, Lax(identity), name, also=CLIENT)
        resuming = _client(self._identities.of(exchange.source), alpn)
        yield Case("a resumed session", CLIENT | SERVER, resuming, right, name, twice=True)


def _forge(identities: Identities, source: Node) -> dict[str, Identity]:
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


def _strangers(identities: Identities, exchange: Exchange) -> Iterator[tuple[str, End]]:
    nodes = identities.topology.nodes.values()
    ends = {exchange.source.id, exchange.destination.id}
    for label, found in (
        ("the certificate of another role", [each for each in nodes if each.role != exchange.source.role]),
        (
            "the certificate of the same role at another site",
            [each for each in nodes if each.role == exchange.source.role and each.site != exchange.source.site],
        ),
    ):
        strange = next((each for each in found if each.id not in ends), None)
        if strange is not None:
            yield label, strange


def _old_versions(exchange: Exchange, own: Identity, right: Lax) -> Iterator[Case]:
    for version, option in ((ssl.TLSVersion.TLSv1, "-tls1"), (ssl.TLSVersion.TLSv1_1, "-tls1_1")):
        server = Lax(right.identity, (option, "-cipher", "ALL:@SECLEVEL=0"))
        label = f"TLS {option[4:].replace('_', '.')}"
        old = _client(own, exchange.alpn, version)
        yield Case(label, VERSION, old, server, exchange.name, also=SUITE)


def _suites(exchange: Exchange, own: Identity, right: Lax) -> Iterator[Case]:
    """Yield versions and suites that an inspected flow does not permit, from a client with the right certificate."""
    alpn, name = exchange.alpn, exchange.name
    newest = Lax(right.identity, ("-tls1_3",))
    also = SUITE | CLIENT | SERVER
    yield Case("TLS 1.3", VERSION, _client(own, alpn, ssl.TLSVersion.TLSv1_3), newest, name, also=also)
    for label, suites in (
        ("a CBC suite", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"),
        ("an anonymous suite", "aNULL:@SECLEVEL=0"),
        ("a suite without encryption", "ECDHE-ECDSA-NULL-SHA:@SECLEVEL=0"),
    ):
        server = Lax(right.identity, ("-tls1_2", "-cipher", suites))
        yield Case(label, SUITE, _client(own, alpn, suites=suites), server, name, also=CLIENT | SERVER)


def _names(exchange: Exchange, own: Identity, right: Lax, version: ssl.TLSVersion) -> Iterator[Case]:
    alpn, name = exchange.alpn, exchange.name
    yield Case("ALPN http/1.1", ALPN, _client(own, "http/1.1", version), right, name)
    yield Case("no ALPN", ALPN, _client(own, None, version), right, name)
    yield Case("another name", NAME, _client(own, alpn, version), right, "www.example.internal")
    yield Case("no name", NAME, _client(own, alpn, version), right, None)


def _instead(exchange: Exchange, good: ssl.SSLContext, right: Lax) -> Iterator[Case]:
    """Yield what is not TLS, or not from its beginning."""
    forbidden = frozenset(f"protocol-{each}" for each in _PROTOCOLS)
    for label, request in _REQUESTS.items():
        yield Case(f"{label} instead of TLS", NOT_TLS | forbidden, says=request)
    yield Case("random bytes instead of TLS", NOT_TLS, says=b"\x80" + os.urandom(3000))
    for label, greeting in _BANNERS.items():
        kinds = SERVER_FIRST if "known" in label else SERVER_FIRST | forbidden
        if label == "STARTTLS":
            yield Case(label, kinds, good, None, exchange.name, says=b"STARTTLS\r\n", greeting=greeting, also=NOT_TLS)
        else:
            yield Case(f"{label} from the server", kinds, greeting=greeting, says=b"", also=NOT_TLS)
    yield Case("plaintext, then TLS", NOT_TLS | forbidden, good, right, exchange.name, says=b"HELLO\r\n")


_PROTOCOLS = (
    *("smtp", "http", "http2", "ftp", "telnet", "telnet-negotiation", "ssh", "rdp", "smb", "pgsql", "mysql"),
    *("ldap-tcp", "websocket", "imap", "pop3", "rfb", "tds", "dcerpc-tcp"),
)


def _client(
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
