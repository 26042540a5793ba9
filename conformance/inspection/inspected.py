"""What is tried on the port of an inspected flow, and which signature of the engines must stop it."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping

from conformance.application.book import Exchange
from conformance.inspection.case import (
    ALPN,
    AWKWARD,
    BANNERS,
    CLIENT,
    GOES_ON,
    GOOD,
    NAME,
    NOT_TLS,
    PROTOCOLS,
    REQUESTS,
    SECOND_HELLO,
    SERVER,
    SERVER_FIRST,
    SUITE,
    VERSION,
    Again,
    Case,
    client,
    strangers,
)
from conformance.inspection.servers import Lax
from conformance.pki import Identities
from conformance.pki.identities import Identity


def inspected_cases(identities: Identities, exchange: Exchange, forged: Mapping[str, Identity]) -> Iterator[Case]:
    """Yield what is tried against a tolerant server.

    Args:
        identities: Of all ends.
        exchange: One connection of the flow.
        forged: Certificates with the source's names that are not its own, by what they are.

    """
    own = identities.of(exchange.source)
    right = Lax(identities.of(exchange.destination))
    good = client(own, exchange.alpn)
    yield Case("both certificates", GOOD, good, right, exchange.name)
    chacha = client(own, exchange.alpn, suites="ECDHE+CHACHA20")
    yield Case("both certificates, ChaCha20-Poly1305", GOOD, chacha, right, exchange.name)
    yield from _certificates(identities, exchange, forged, right)
    yield from _suites(exchange, own, right)
    yield from _old_versions(exchange, own, right)
    yield from _names(exchange, own, right, ssl.TLSVersion.TLSv1_2)
    yield from _instead(exchange, good, right)
    yield from _renegotiations(own, right)
    for cut in AWKWARD:
        nobody = client(None, exchange.alpn)
        label = f"no certificate, hello cut at {cut}"
        yield Case(label, CLIENT | NOT_TLS, nobody, right, exchange.name, cuts=(cut,))


def _certificates(
    identities: Identities, exchange: Exchange, forged: Mapping[str, Identity], right: Lax
) -> Iterator[Case]:
    name, alpn = exchange.name, exchange.alpn
    strict = Lax(right.identity, ("-Verify", "9", "-verify_return_error", "-CAfile", str(right.identity.trust)))
    own = client(identities.of(exchange.source), alpn)
    yield Case("both certificates, a strict server", GOOD, own, strict, name)
    for label, wrong in (("no certificate", None), *forged.items()):
        yield Case(f"{label}, a strict server", CLIENT, client(wrong, alpn), strict, name)
    yield Case("no certificate", CLIENT, client(None, alpn), right, name)
    not_asked = Lax(right.identity, ("-verify_quiet",))
    yield Case("no certificate, verification quiet", CLIENT, client(None, alpn), not_asked, name)
    for label, identity in forged.items():
        yield Case(label, CLIENT, client(identity, alpn), right, name)
    for label, end in strangers(identities, exchange):
        strange = identities.of(end)
        yield Case(label, CLIENT, client(strange, alpn), right, name)
        yield Case(
            f"{label}, at the server",
            SERVER,
            client(identities.of(exchange.source), alpn),
            Lax(strange),
            name,
            also=CLIENT,
        )
    for label, identity in forged.items():
        own = client(identities.of(exchange.source), alpn)
        yield Case(f"{label}, at the server", SERVER, own, Lax(identity), name, also=CLIENT)
    resuming = client(identities.of(exchange.source), alpn)
    yield Case("a resumed session", CLIENT | SERVER, resuming, right, name, twice=True)


def _old_versions(exchange: Exchange, own: Identity, right: Lax) -> Iterator[Case]:
    for version, option in ((ssl.TLSVersion.TLSv1, "-tls1"), (ssl.TLSVersion.TLSv1_1, "-tls1_1")):
        server = Lax(right.identity, (option, "-cipher", "ALL:@SECLEVEL=0"))
        label = f"TLS {option[4:].replace('_', '.')}"
        old = client(own, exchange.alpn, version)
        yield Case(label, VERSION, old, server, exchange.name, also=SUITE)


def _suites(exchange: Exchange, own: Identity, right: Lax) -> Iterator[Case]:
    """Yield versions and suites that an inspected flow does not permit, from a client with the right certificate."""
    alpn, name = exchange.alpn, exchange.name
    newest = Lax(right.identity, ("-tls1_3",))
    also = SUITE | CLIENT | SERVER
    yield Case("TLS 1.3", VERSION, client(own, alpn, ssl.TLSVersion.TLSv1_3), newest, name, also=also)
    for label, suites in (
        ("a CBC suite", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"),
        ("an anonymous suite", "aNULL:@SECLEVEL=0"),
        ("a suite without encryption", "ECDHE-ECDSA-NULL-SHA:@SECLEVEL=0"),
    ):
        server = Lax(right.identity, ("-tls1_2", "-cipher", suites))
        yield Case(label, SUITE, client(own, alpn, suites=suites), server, name, also=CLIENT | SERVER)


def _names(exchange: Exchange, own: Identity, right: Lax, version: ssl.TLSVersion) -> Iterator[Case]:
    alpn, name = exchange.alpn, exchange.name
    yield Case("ALPN http/1.1", ALPN, client(own, "http/1.1", version), right, name)
    yield Case("no ALPN", ALPN, client(own, None, version), right, name)
    yield Case("another name", NAME, client(own, alpn, version), right, "www.example.internal")
    yield Case("no name", NAME, client(own, alpn, version), right, None)


def _renegotiations(own: Identity, right: Lax) -> Iterator[Case]:
    """Yield second handshakes of a client that has passed with the first one, and could be somebody else after it."""
    tolerant = ("-tls1_2", "-client_renegotiation", "-legacy_renegotiation")
    lax, asking = Lax(right.identity, tolerant), Lax(right.identity, tolerant, obedient=True)
    strict = Lax(right.identity, ("-tls1_2", "-no_renegotiation"))
    gcm, chacha = "ECDHE+AESGCM", "ECDHE+CHACHA20"
    for label, again in (
        ("renegotiation", Again(lax, own, gcm)),
        ("renegotiation with ChaCha20-Poly1305", Again(lax, own, chacha)),
        ("renegotiation that the server asks for", Again(asking, own, gcm, asked=True)),
        ("renegotiation, a strict server", Again(strict, own, gcm)),
    ):
        yield Case(label, SECOND_HELLO, again=again)


def _instead(exchange: Exchange, good: ssl.SSLContext, right: Lax) -> Iterator[Case]:
    """Yield what is not TLS, or not from its beginning."""
    forbidden = frozenset(f"protocol-{each}" for each in PROTOCOLS)
    for label, request in REQUESTS.items():
        # A handshake record that holds no message of a client in clear may be taken for one of a second handshake; what
        # begins like a hello lacks what rules for Suricata 7 look for in its bytes.
        also = GOES_ON | SECOND_HELLO | (ALPN | NAME | CLIENT if "forged" in label else GOOD)
        yield Case(f"{label} instead of TLS", NOT_TLS | forbidden, says=request, also=also)
    yield Case("random bytes instead of TLS", NOT_TLS, says=b"\x80" + os.urandom(3000), also=GOES_ON)
    for label, greeting in BANNERS.items():
        kinds = SERVER_FIRST if "known" in label else SERVER_FIRST | forbidden
        if label == "STARTTLS":
            yield Case(label, kinds, good, None, exchange.name, says=b"STARTTLS\r\n", greeting=greeting, also=NOT_TLS)
        else:
            yield Case(f"{label} from the server", kinds, greeting=greeting, says=b"", also=NOT_TLS)
    yield Case("plaintext, then TLS", NOT_TLS | forbidden, good, right, exchange.name, says=b"HELLO\r\n")
