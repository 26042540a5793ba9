"""What is tried on the port of a relayed flow, and what of the relays must stop it, if no engine has before."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import replace

from conformance.application.book import Exchange
from conformance.application.message import MAGIC
from conformance.inspection.case import (
    ALPN,
    AWKWARD,
    BANNERS,
    GOES_ON,
    GOOD,
    NAME,
    NOT_TLS,
    PROTOCOLS,
    REQUESTS,
    SERVER_FIRST,
    SUITE,
    VERSION,
    Case,
    client,
    strangers,
)
from conformance.inspection.servers import Lax
from conformance.pki import Identities
from conformance.pki.identities import Identity

HANDSHAKE, IDENTITY, PROTOCOL, PROLOGUE, ANSWER, ONWARD = (
    frozenset({f"relay-{what}"}) for what in ("handshake", "identity", "alpn", "prologue", "answer", "onward")
)
_FORBIDDEN = frozenset(f"protocol-{each}" for each in PROTOCOLS)
_BESIDES = GOES_ON | VERSION | SUITE | NAME | ALPN | NOT_TLS | SERVER_FIRST | _FORBIDDEN | HANDSHAKE
"""What engines may say as well, where they stand before the relay or after it, and the relay of what they drop."""
_EARLY = MAGIC + bytes(64)
_TLS_1_3 = ssl.TLSVersion.TLSv1_3
_ANSWERS = {
    "an HTTP answer inside TLS": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "an SMTP greeting inside TLS": b"220 mail.example ESMTP ready\r\n",
}


def relayed_cases(
    identities: Identities, exchange: Exchange, forged: Mapping[str, Identity], servers: Mapping[str, Identity]
) -> Iterator[Case]:
    """Yield what is tried against a tolerant server.

    Args:
        identities: Of all ends.
        exchange: One connection of the flow.
        forged: Certificates with the source's names that are not its own, by what they are.
        servers: The same with the destination's.

    """
    own = identities.of(exchange.source)
    right = Lax(identities.of(exchange.destination))
    good = client(own, exchange.alpn, _TLS_1_3)
    answering = Lax(identities.of(exchange.destination), says=MAGIC)
    yield Case("both certificates", GOOD, good, answering, exchange.name)
    yield Case("a session that is asked to be resumed", GOOD, good, answering, exchange.name, twice=True)
    for case in (
        *_certificates(identities, exchange, forged, right),
        *_handshakes(exchange, own, right),
        *_instead(exchange, own, right),
        *_inside(exchange, good, right),
        *_servers(identities, exchange, servers, good),
    ):
        yield replace(case, also=case.also | _BESIDES)


def _certificates(
    identities: Identities, exchange: Exchange, forged: Mapping[str, Identity], right: Lax
) -> Iterator[Case]:
    name, alpn = exchange.name, exchange.alpn
    nobody = client(None, alpn, _TLS_1_3)
    yield Case("no certificate", HANDSHAKE, nobody, right, name)
    for cut in AWKWARD:
        yield Case(f"no certificate, hello cut at {cut}", HANDSHAKE | NOT_TLS, nobody, right, name, cuts=(cut,))
    for label, identity in forged.items():
        yield Case(label, HANDSHAKE, client(identity, alpn, _TLS_1_3), right, name)
    for label, end in strangers(identities, exchange):
        yield Case(label, IDENTITY, client(identities.of(end), alpn, _TLS_1_3), right, name)


def _handshakes(exchange: Exchange, own: Identity, right: Lax) -> Iterator[Case]:
    name, alpn = exchange.name, exchange.alpn
    for label, version in (
        ("TLS 1.0", ssl.TLSVersion.TLSv1),
        ("TLS 1.1", ssl.TLSVersion.TLSv1_1),
        ("TLS 1.2", ssl.TLSVersion.TLSv1_2),
    ):
        yield Case(label, VERSION | HANDSHAKE, client(own, alpn, version), right, name)
    for label, suites in (
        ("a CBC suite", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"),
        ("an anonymous suite", "aNULL:@SECLEVEL=0"),
        ("a suite without encryption", "ECDHE-ECDSA-NULL-SHA:@SECLEVEL=0"),
    ):
        yield Case(label, HANDSHAKE | VERSION, client(own, alpn, suites=suites), right, name)
    yield Case("ALPN http/1.1", ALPN | PROTOCOL, client(own, "http/1.1", _TLS_1_3), right, name)
    yield Case("no ALPN", ALPN | PROTOCOL, client(own, None, _TLS_1_3), right, name)
    yield Case("another name", NAME | HANDSHAKE, client(own, alpn, _TLS_1_3), right, "www.example.internal")
    yield Case("no name", NAME | HANDSHAKE, client(own, alpn, _TLS_1_3), right, None)


def _instead(exchange: Exchange, identity: Identity, right: Lax) -> Iterator[Case]:
    """Yield what is not TLS, or not from its beginning."""
    stopping = HANDSHAKE | NOT_TLS | _FORBIDDEN
    for label, said in REQUESTS.items():
        yield Case(f"{label} instead of TLS", stopping, says=said)
    yield Case("random bytes instead of TLS", stopping, says=b"\x80" + os.urandom(3000))
    nobody = client(None, exchange.alpn, _TLS_1_3)
    yield Case("plaintext, then TLS", stopping, nobody, right, exchange.name, says=b"HELLO\r\n")
    # A record as of 0-RTT (RFC 8446, 2.3), for which no relay has ever given anyone a key.
    record = b"\x17\x03\x03" + len(_EARLY).to_bytes(2, "big") + _EARLY
    own = client(identity, exchange.alpn, _TLS_1_3)
    yield Case("early data", HANDSHAKE, own, right, exchange.name, early=record)


def _inside(exchange: Exchange, good: ssl.SSLContext, right: Lax) -> Iterator[Case]:
    """Yield other protocols than the application's inside of TLS that is all right, where it is known by something."""
    for label, said in REQUESTS.items() if exchange.prologue else ():
        yield Case(f"{label} inside TLS", PROLOGUE, good, right, exchange.name, request=said)


def _servers(
    identities: Identities, exchange: Exchange, forged: Mapping[str, Identity], good: ssl.SSLContext
) -> Iterator[Case]:
    """Yield servers that are not who they should be, or say what they should not."""
    for label, identity in forged.items():
        yield Case(f"{label}, at the server", ONWARD, good, Lax(identity), exchange.name)
    for label, end in strangers(identities, exchange):
        yield Case(f"{label}, at the server", ONWARD, good, Lax(identities.of(end)), exchange.name)
    own = Lax(identities.of(exchange.destination), ("-tls1_2",))
    yield Case("TLS 1.2, at the server", ONWARD, good, own, exchange.name)
    for label, greeting in BANNERS.items():
        stopping = ONWARD | SERVER_FIRST | NOT_TLS | _FORBIDDEN
        yield Case(f"{label} from the server", stopping, good, None, exchange.name, greeting=greeting, patient=False)
    for label, said in _ANSWERS.items() if exchange.prologue else ():
        talking = Lax(identities.of(exchange.destination), says=said)
        yield Case(label, ANSWER, good, talking, exchange.name)
