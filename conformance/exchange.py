"""Complete exchanges of the application over every permitted pair, and the ways in which one must come to nothing."""

from __future__ import annotations

import socket
import ssl
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from conformance.application.book import Exchange, exchanges
from conformance.application.connection import ask
from conformance.application.message import MessageError, encode, request_for
from conformance.application.serve import Serving
from conformance.application.tls import HANDSHAKE_SECONDS, PeerError, context
from conformance.expect import Expectation
from conformance.lab import Lab
from conformance.outcome import Expected, Outcome, Status, Verdict
from conformance.pki import Identities
from conformance.pki.authority import Span
from conformance.pki.identities import Identity
from netpolicy.topology.model import Address, Assurance, Limits

STAGE = "exchange"

_CONNECT_SECONDS = 1.5
_SETTLE_SECONDS = 0.2
"""After which a server that has not read anything will not."""
_SHARE = 0.8
"""Of a flow's rate that is used: a connection counts on every firewall of its way, and once more for a repeated SYN."""


def run_exchanges(
    lab: Lab, serving: Serving, identities: Identities, expectation: Expectation, progress: Callable[[str], None]
) -> list[Outcome]:
    """Try every permitted pair in each family, and once for each flow everything that its server must refuse.

    Flows are tried side by side, each within its own limits.
    """
    by_flow: dict[str, list[Exchange]] = {}
    for each in exchanges(lab.topology, expectation.routing):
        by_flow.setdefault(each.flow.id, []).append(each)
    impostors = _Impostors(lab, identities, by_flow)

    def tried(flow: str) -> list[Outcome]:
        found = list(_Flow(lab, serving, identities, expectation, impostors).run(by_flow[flow]))
        progress(f"{len(found)} exchanges of {flow}")
        return found

    with ThreadPoolExecutor(max_workers=max(1, len(by_flow))) as pool:
        return [outcome for outcomes in pool.map(tried, by_flow) for outcome in outcomes]


class _Impostors:
    """Certificates that no server may accept, made once, before anything is sent."""

    def __init__(self, lab: Lab, identities: Identities, by_flow: dict[str, list[Exchange]]) -> None:
        self.made: dict[str, dict[str, Identity]] = {}
        self.old: dict[str, ssl.SSLContext] = {}
        """Contexts of TLS 1.1 with the right certificate."""
        nodes = list(lab.topology.nodes.values())
        now = identities.now
        past = Span(now - timedelta(days=2), now - timedelta(days=1))
        clients: dict[tuple[Address, int], set[str]] = {}
        for each in (each for pairs in by_flow.values() for each in pairs):
            clients.setdefault((each.address, each.port), set()).add(each.source.id)
        for flow, pairs in by_flow.items():
            first = pairs[0]
            permitted = clients[first.address, first.port]
            stranger = next((node for node in nodes if node.id not in permitted), None)
            forged = {
                "an expired certificate": identities.forge(first.source, f".expired-{flow}", span=past),
                "a certificate of a foreign authority": identities.forge(
                    first.source, f".foreign-{flow}", foreign=True
                ),
                "a revoked certificate": identities.forge(first.source, f".revoked-{flow}"),
            }
            if stranger is not None:
                forged[f"the certificate of {stranger.id}, whom no flow permits"] = identities.of(stranger)
            identities.revoke(forged["a revoked certificate"])
            self.made[flow] = forged
            self.old[flow] = _old(identities.of(first.source), first.alpn)


@dataclass(slots=True)
class _Pace:
    """Keeps below a flow's rate."""

    limits: Limits
    _times: list[float] = field(default_factory=list)

    def wait(self) -> None:
        rate = self.limits.rate
        if rate is not None:
            pause = 1.0 / (rate * _SHARE)
            due = (self._times[-1] if self._times else 0.0) + pause
            time.sleep(max(0.0, due - time.monotonic()))
        self._times[:] = [time.monotonic()]


@dataclass(slots=True)
class _Flow:
    """The exchanges of one flow, one after the other."""

    lab: Lab
    serving: Serving
    identities: Identities
    expectation: Expectation
    impostors: _Impostors

    def run(self, pairs: list[Exchange]) -> Iterator[Outcome]:
        flow = pairs[0].flow
        pace = _Pace(flow.limits)
        reason = self.expectation.closed(flow)
        for each in pairs:
            pace.wait()
            if reason is None:
                yield self._permitted(each)
            else:
                yield self._denied(each, Expected(Verdict.DENY, flow.id, reason))
        if reason is None:
            for label, attempt in self._refused(pairs[0]):
                pace.wait()
                yield self._nothing_received(pairs[0], label, attempt)

    def _permitted(self, each: Exchange) -> Outcome:
        request = request_for(each.flow.service, each.flow.affair)
        expected = Expected(Verdict.PERMIT, each.flow.id)
        label = f"{request.kind} tcp/{each.port} {_version(each.flow.assurance)}"
        before = self._received(each)
        try:
            identity = self.identities.of(each.source)
            plain = self._connect(each)
            answer = ask(plain, identity, request, uri=each.uri, assurance=each.flow.assurance, alpn=each.alpn)
        except (OSError, PeerError, MessageError) as failed:
            return self._outcome(each, label, expected, Status.DEVIATION, f"the exchange failed: {failed}")
        received = self._received(each) - before
        if received < len(encode(request)):
            return self._outcome(each, label, expected, Status.DEVIATION, "the server's application received nothing")
        return self._outcome(each, label, expected, Status.PASS, f"{request.kind} was answered by {answer.kind}")

    def _denied(self, each: Exchange, expected: Expected) -> Outcome:
        label = f"connection tcp/{each.port}"
        try:
            self._connect(each).close()
        except TimeoutError:
            return self._outcome(each, label, expected, Status.PASS, "no answer")
        except OSError as failed:
            return self._outcome(each, label, expected, Status.DEVIATION, f"an answer came: {failed}")
        return self._outcome(each, label, expected, Status.DEVIATION, "the connection was opened")

    def _nothing_received(self, each: Exchange, label: str, attempt: Callable[[], str]) -> Outcome:
        """Make an attempt that the server must refuse: its application must not have read a byte.

        A TLS 1.3 client that is rejected still sees its handshake and first write succeed.
        """
        expected = Expected(Verdict.DENY, each.flow.id)
        before = self._received(each)
        try:
            observed = attempt()
        except TimeoutError as failed:
            return self._outcome(each, label, expected, Status.ERROR, f"the server did not answer at all: {failed}")
        time.sleep(_SETTLE_SECONDS)
        if self._received(each) != before:
            return self._outcome(each, label, expected, Status.DEVIATION, "the server's application received data")
        return self._outcome(each, label, expected, Status.PASS, observed)

    def _refused(self, each: Exchange) -> Iterator[tuple[str, Callable[[], str]]]:
        own = self.identities.of(each.source)
        for label, identity in self.impostors.made[each.flow.id].items():
            yield f"with {label}", partial(self._try_with, each, identity)
        yield "without a certificate", partial(self._try_with, each, None)
        other = {Assurance.INSPECT: Assurance.TERMINATE, Assurance.TERMINATE: Assurance.INSPECT}[each.flow.assurance]
        wrong_version = context(own, frozenset({other}), each.alpn, server=False)
        yield f"with {_version(other)}", partial(self._try_tls, each, wrong_version)
        yield "with TLS 1.1", partial(self._try_tls, each, self.impostors.old[each.flow.id])
        wrong_protocol = context(own, frozenset({each.flow.assurance}), "http/1.1", server=False)
        yield "with ALPN http/1.1", partial(self._try_tls, each, wrong_protocol)
        yield "with plain HTTP", partial(self._try_plain, each)

    def _client(self, each: Exchange, identity: Identity | None) -> ssl.SSLContext:
        """Return a context that does not care about the server, only about being let in."""
        own = self.identities.of(each.source)
        if identity is not None:
            return context(identity, frozenset({each.flow.assurance}), each.alpn, server=False)
        found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        found.check_hostname = False
        found.load_verify_locations(own.trust)
        found.set_alpn_protocols([each.alpn])
        return found

    def _try_with(self, each: Exchange, identity: Identity | None) -> str:
        return self._try_tls(each, self._client(each, identity))

    def _try_tls(self, each: Exchange, ours: ssl.SSLContext) -> str:
        plain = self._connect(each)
        plain.settimeout(HANDSHAKE_SECONDS)
        try:
            with plain, ours.wrap_socket(plain) as connection:
                connection.sendall(encode(request_for(each.flow.service, each.flow.affair)))
                return "refused on the first read" if not connection.recv(1) else "answered"
        except (ssl.SSLError, ConnectionError) as refused:
            return f"refused: {refused}"

    def _try_plain(self, each: Exchange) -> str:
        plain = self._connect(each)
        plain.settimeout(HANDSHAKE_SECONDS)
        try:
            with plain:
                plain.sendall(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")
                answer = plain.recv(64)
        except ConnectionError as refused:
            return f"refused: {refused}"
        return f"refused with {len(answer)} bytes" if b"HTTP" not in answer else "answered"

    def _connect(self, each: Exchange) -> socket.socket:
        target = (str(each.address), each.port)
        namespace = self.lab.namespace(each.source.id)
        return namespace.call(lambda: socket.create_connection(target, timeout=_CONNECT_SECONDS))

    def _received(self, each: Exchange) -> int:
        """Return the bytes that the server's application has read from the source so far."""
        client = next(a for a in each.source.interface.addresses if a.version == each.address.version)
        return self.serving.tally(each.address, each.port, client).received

    def _outcome(self, each: Exchange, label: str, expected: Expected, status: Status, observed: str) -> Outcome:
        family = each.address.version
        return Outcome(STAGE, each.source.id, each.destination.id, label, family, None, expected, status, observed)


def _old(identity: Identity, alpn: str) -> ssl.SSLContext:
    """Return a context of TLS 1.1, which OpenSSL 3 only speaks at security level 0."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    found.check_hostname = False
    found.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is what must be refused
        found.minimum_version = ssl.TLSVersion.TLSv1_1
        found.maximum_version = ssl.TLSVersion.TLSv1_1
    found.load_verify_locations(identity.trust)
    found.load_cert_chain(identity.chain, identity.key)
    found.set_alpn_protocols([alpn])
    return found


def _version(assurance: Assurance) -> str:
    return "TLS 1.2" if assurance is Assurance.INSPECT else "TLS 1.3"
