"""Clients that a server must refuse, each with what the server then says: a failure alone does not prove a refusal."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from conformance.application.book import Exchange
from conformance.application.tls import context
from conformance.pki import Identities
from conformance.pki.identities import Identity
from netpolicy.pki.authority import Span
from netpolicy.topology.ends import End
from netpolicy.topology.model import Address, Assurance, Firewall, Node

VERSIONS = {Assurance.INSPECT: "TLS 1.2", Assurance.TERMINATE: "TLS 1.3"}
_OTHER = {Assurance.INSPECT: Assurance.TERMINATE, Assurance.TERMINATE: Assurance.INSPECT}


@dataclass(frozen=True, slots=True)
class Impostor:
    """One way to try a permitted path without being who it is permitted for."""

    exchange: Exchange
    label: str
    refusal: str
    """What the server must say, as a regular expression; anything else may have failed before it got there."""
    relay: str
    """The same for what the first relay must say, where the flow is relayed."""
    context: ssl.SSLContext | None
    """The client's; None for one that speaks HTTP without TLS."""
    recent: bool = False
    """Whether it is one only by a revocation list of just now."""


def impostors(identities: Identities, exchanges: Iterable[Exchange]) -> list[Impostor]:
    """Return every impostor for one exchange of each flow, role of its destination, and family.

    All certificates and contexts are made here, before anything is sent, by one thread: to allow what is deprecated,
    warnings are turned off for the whole process.
    """
    clients: dict[tuple[Address, int], set[str]] = {}
    chosen: dict[tuple[str, str, int], Exchange] = {}
    for each in exchanges:
        clients.setdefault((each.address, each.port), set()).add(each.source.id)
        chosen.setdefault((each.flow.id, _role(each.destination), each.address.version), each)
    sources = {each.source.id: each.source for each in chosen.values()}
    forged = {source.id: _Forged.of(identities, source) for source in sources.values()}
    identities.revoke(*(each.revoked for each in forged.values()))
    found: list[Impostor] = []
    for each in chosen.values():
        permitted = clients[each.address, each.port]
        ends: list[End] = [*identities.topology.nodes.values(), *identities.topology.firewalls.values()]
        stranger = next(end for end in ends if end.id not in permitted)
        own = identities.of(each.source)
        found += _with_other_certificates(each, forged[each.source.id], stranger, identities.of(stranger))
        found += _with_own_certificate(each, own)
        nobody = _nobody(own, each.alpn)
        absent = "did not return a certificate"
        found.append(Impostor(each, "without a certificate", absent, absent, nobody))
        found.append(Impostor(each, "with plain HTTP", "http request", "http request", None))
    return found


@dataclass(frozen=True, slots=True)
class _Forged:
    """Certificates with the right URI that are not valid all the same."""

    expired: Identity
    foreign: Identity
    revoked: Identity

    @classmethod
    def of(cls, identities: Identities, source: Node) -> _Forged:
        # No id begins with a dot.
        past = Span(identities.now - timedelta(days=2), identities.now - timedelta(days=1))
        return cls(
            expired=identities.forge(source, f".expired-{source.id}", span=past),
            foreign=identities.forge(source, f".foreign-{source.id}", foreign=True),
            revoked=identities.forge(source, f".revoked-{source.id}"),
        )


def _with_other_certificates(each: Exchange, forged: _Forged, stranger: End, strange: Identity) -> Iterator[Impostor]:
    foreign = "unable to get local issuer certificate"
    strangest = f"the certificate of {stranger.id}, whom no flow permits"
    for label, refusal, relay, identity in (
        ("an expired certificate", "certificate has expired", "verify=10/", forged.expired),
        (
            "a certificate of a foreign authority",
            foreign,
            "verify=0/20",
            forged.foreign,
        ),
        ("a revoked certificate", "certificate revoked", "verify=23/", forged.revoked),
        (
            strangest,
            "no flow permits it here",
            "deny=identity",
            strange,
        ),
    ):
        ours = context(identity, frozenset({each.flow.assurance}), each.alpn, server=False)
        yield Impostor(each, f"with {label}", refusal, relay, ours, recent=identity is forged.revoked)


def _with_own_certificate(each: Exchange, own: Identity) -> Iterator[Impostor]:
    other = _OTHER[each.flow.assurance]
    old = "unsupported protocol"
    wrong_version = context(own, frozenset({other}), each.alpn, server=False)
    # A port that serves flows of both assurances takes both versions, and then looks at whose flow it is.
    yield Impostor(each, f"with {VERSIONS[other]}", f"{old}|its flow demands", old, wrong_version)
    yield Impostor(each, "with TLS 1.1", old, old, _old(own, each.alpn))
    wrong_protocol = context(own, frozenset({each.flow.assurance}), "http/1.1", server=False)
    yield Impostor(each, "with ALPN http/1.1", "did not agree on", "deny=alpn", wrong_protocol)


def _nobody(own: Identity, alpn: str) -> ssl.SSLContext:
    """Return a context without a certificate."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    found.check_hostname = False
    found.load_verify_locations(own.trust)
    found.set_alpn_protocols([alpn])
    return found


def _old(own: Identity, alpn: str) -> ssl.SSLContext:
    """Return a context of TLS 1.1, which OpenSSL 3 only speaks at security level 0."""
    found = _nobody(own, alpn)
    found.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is what must be refused
        found.minimum_version = ssl.TLSVersion.TLSv1_1
        found.maximum_version = ssl.TLSVersion.TLSv1_1
    found.load_cert_chain(own.chain, own.key)
    return found


def _role(end: End) -> str:
    return "firewall" if isinstance(end, Firewall) else end.role
