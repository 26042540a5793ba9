"""Complete exchanges of the application over every permitted pair, and the ways in which one must come to nothing."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import ip_address

from conformance.application.book import Exchange, exchanges
from conformance.application.connection import Server, ask
from conformance.application.message import MessageError, answer_to, encode, request_for
from conformance.application.serve import Serving, Tally
from conformance.application.tls import HANDSHAKE_SECONDS, PeerError, Terms
from conformance.expect import Expectation
from conformance.impostors import VERSIONS, Impostor, impostors
from conformance.lab import Lab
from conformance.lab.relay import Relay
from conformance.lab.scope import Scope
from conformance.outcome import Expected, Outcome, Status, Verdict
from conformance.pki import Identities
from netpolicy.reasons import DenyReason
from netpolicy.topology.ends import source_limits
from netpolicy.topology.model import Address, Flow

STAGE = "exchange"

_CONNECT_SECONDS = 10.0
"""For a connection that must come to be: a busy machine is no deviation."""
_DENIED_SECONDS = 1.5
"""For one that must not: long enough for a second SYN."""
_END_SECONDS = HANDSHAKE_SECONDS + 1.0
"""After which a server has given up on a client that says nothing."""
_SHARE = 0.8
"""Of a flow's rate that is used: a connection counts on every firewall of its way, and once more for a repeated SYN."""


def run_exchanges(
    lab: Lab,
    serving: Serving,
    identities: Identities,
    expectation: Expectation,
    scope: Scope,
    *,
    progress: Callable[[str], None],
    stage: str = STAGE,
    refusals: bool = True,
    wanted: Callable[[Exchange], bool] = lambda _each: True,
) -> list[Outcome]:
    """Try every permitted pair in each family, and then everything that its server must refuse.

    Flows are tried side by side, each within its own limits.

    Args:
        lab: With servers.
        serving: Those.
        identities: Theirs and their clients'.
        expectation: Says which flows are open.
        scope: Admits the connections.
        progress: Told of every flow that is done.
        stage: What outcomes are counted under.
        refusals: Whether to try what servers must refuse, too.
        wanted: Which are tried.

    Raises:
        ScopeError: Something may not be sent.

    """
    by_flow: dict[str, list[Exchange]] = {}
    for each in filter(wanted, exchanges(lab.topology, expectation.routing)):
        by_flow.setdefault(each.flow.id, []).append(each)
    by_impostor: dict[str, list[Impostor]] = {flow: [] for flow in by_flow}
    if refusals:
        for impostor in impostors(identities, (each for pairs in by_flow.values() for each in pairs)):
            if askable(lab, impostor):
                by_impostor[impostor.exchange.flow.id].append(impostor)
        lab.renew_relays(identities.directory)  # some of them have revoked certificates

    def tried(flow: str) -> list[Outcome]:
        begun = _Flow(lab, serving, identities, expectation, scope, lab.topology.flows[flow], stage)
        found = list(begun.run(by_flow[flow], by_impostor[flow]))
        progress(f"{len(found)} exchanges of {flow}")
        return found

    with ThreadPoolExecutor(max_workers=max(1, len(by_flow))) as pool:
        return [outcome for outcomes in pool.map(tried, by_flow) for outcome in outcomes]


def askable(lab: Lab, impostor: Impostor) -> bool:
    """Tell whether an impostor can be tried: a relay that runs elsewhere knows nothing of who was revoked since."""
    return not impostor.recent or not lab.elsewhere.intersection(impostor.exchange.relays)


@dataclass(slots=True)
class _Pace:
    """Keeps below a flow's rate, and below that of each of its sources."""

    rate: int | None
    each: int | None
    _due: dict[tuple[str, int] | None, float] = field(default_factory=dict)

    def wait(self, exchange: Exchange) -> None:
        source = (exchange.source.id, exchange.address.version)
        rates = {key: rate for key, rate in ((None, self.rate), (source, self.each)) if rate is not None}
        time.sleep(max(0.0, *(self._due.get(key, 0.0) - time.monotonic() for key in rates), 0.0))
        for key, rate in rates.items():
            self._due[key] = time.monotonic() + 1.0 / (rate * _SHARE)


@dataclass(slots=True)
class _Flow:
    """The exchanges of one flow, one after the other."""

    lab: Lab
    serving: Serving
    identities: Identities
    expectation: Expectation
    scope: Scope
    flow: Flow
    stage: str
    _works: set[tuple[str, Address, int]] = field(default_factory=set)
    """What a permitted client achieved: its source, and the server's address and port."""

    def run(self, pairs: list[Exchange], impostors_: list[Impostor]) -> Iterator[Outcome]:
        pace = _Pace(self.flow.limits.rate, source_limits(self.expectation.topology, self.flow).rate)
        reason = self.expectation.closed(self.flow)
        for each in pairs:
            pace.wait(each)
            yield self._permitted(each) if reason is None else self._denied(each, reason)
        for impostor in impostors_ if reason is None else ():
            pace.wait(impostor.exchange)
            yield self._refused(impostor)

    def _permitted(self, each: Exchange) -> Outcome:
        request = request_for(self.flow.service, self.flow.affair)
        label = f"{request.kind} tcp/{each.port} {VERSIONS[self.flow.assurance]}"
        before = self._tally(each)
        try:
            reply = ask(
                self._connect(each),
                self.identities.of(each.source),
                request,
                server=Server(each.uri, each.name, self._sealing(each), each.server_uri),
                terms=Terms.of(self.flow, each.alpn),
            )
        except (OSError, PeerError, MessageError) as failed:
            return self._outcome(each, label, None, Status.DEVIATION, f"the exchange failed: {failed}")
        tally = self._wait_ended(each, before)
        received = tally.received - before.received
        if received != reply.sent or tally.refusal:
            observed = f"the server's application read {received} bytes of {reply.sent}: {tally.refusal}"
            return self._outcome(each, label, None, Status.DEVIATION, observed)
        if reply.answer != answer_to(request):
            return self._outcome(each, label, None, Status.DEVIATION, f"{request.kind} was answered by {reply.answer}")
        self._works.add(_key(each))
        return self._outcome(each, label, None, Status.PASS, f"{request.kind} was answered by {reply.answer.kind}")

    def _sealing(self, each: Exchange) -> bytes | None:
        return self.identities.of(each.destination).sealing_public.read_bytes() if each.relays else None

    def _denied(self, each: Exchange, reason: DenyReason) -> Outcome:
        label = f"connection tcp/{each.port}"
        expected = Expected(Verdict.DENY, self.flow.id, reason)
        try:
            self._connect(each, _DENIED_SECONDS).close()
        except TimeoutError:
            return self._outcome(each, label, expected, Status.PASS, "no answer")
        except OSError as failed:
            return self._outcome(each, label, expected, Status.DEVIATION, f"an answer came: {failed}")
        return self._outcome(each, label, expected, Status.DEVIATION, "the connection was opened")

    def _refused(self, impostor: Impostor) -> Outcome:
        """Try what the server must refuse: its application must not read a byte, and it must say why.

        Only the server's side decides.  A TLS 1.3 client that is rejected still sees its handshake and first write
        succeed, and one that fails may have failed by itself before it had sent anything.
        """
        each, label = impostor.exchange, impostor.label
        expected = Expected(Verdict.DENY, self.flow.id)
        if _key(each) not in self._works:
            observed = "the permitted exchange failed, so that a refusal would prove nothing"
            return self._outcome(each, label, expected, Status.ERROR, observed)
        before = self._tally(each)
        relay = self.lab.relays.get(each.relays[0]) if each.relays else None
        said = len(relay.lines()) if relay is not None else 0
        try:
            plain = self._connect(each)
        except OSError as failed:
            return self._outcome(each, label, expected, Status.ERROR, f"the server was not reached: {failed}")
        with plain:
            here = plain.getsockname()
            seen = _provoke(plain, impostor, encode(request_for(self.flow.service, self.flow.affair)))
        if relay is not None:
            status, observed = self._relay_refusal(impostor, relay, here, said)
        elif each.relays:
            # It runs elsewhere and says its reasons there: that the right client was served has to do.
            status, observed = Status.PASS, "the relay served the right client, and not this one"
            if impostor.context is not None and re.fullmatch(r"[1-9]\d* bytes", seen):
                status, observed = Status.DEVIATION, "the relay answered"
        else:
            status, observed = self._refusal(impostor, before)
        received = self._tally(each).received - before.received
        if received:
            status, observed = Status.DEVIATION, f"the server's application read {received} bytes"
        elif status is not Status.PASS:
            observed = f"{observed}; the client saw: {seen}"
        return self._outcome(each, label, expected, status, observed)

    def _refusal(self, impostor: Impostor, before: Tally) -> tuple[Status, str]:
        """Return what the server has made of an impostor."""
        tally = self._wait_ended(impostor.exchange, before)
        if tally.ended == before.ended:
            return Status.ERROR, "the server has not ended the connection"
        if not re.search(impostor.refusal, tally.refusal):
            return Status.ERROR, f"the server refused for another reason: {tally.refusal}"
        return Status.PASS, f"the server refused: {tally.refusal}"

    @staticmethod
    def _relay_refusal(impostor: Impostor, relay: Relay, here: tuple[str, int], said: int) -> tuple[Status, str]:
        """Return what the first relay has made of an impostor at an address and port, after `said` lines."""
        ends = ip_address(here[0]), here[1]
        line = relay.await_line(said, lambda each: (each.client, each.port) == ends, _END_SECONDS)
        if line is None:
            return Status.ERROR, "the relay has not ended the connection"
        if not re.search(impostor.relay, line.why):
            return Status.ERROR, f"the relay refused for another reason, or not: {line.why}"
        return Status.PASS, f"the relay refused: {line.why}"

    def _connect(self, each: Exchange, seconds: float = _CONNECT_SECONDS) -> socket.socket:
        namespace = self.lab.namespace(each.source.id)
        self.scope.admit_connections(namespace, [each.address])
        target = (str(each.address), each.port)
        return namespace.call(lambda: socket.create_connection(target, timeout=seconds))

    def _tally(self, each: Exchange) -> Tally:
        return self.serving.tally(each)

    def _wait_ended(self, each: Exchange, before: Tally) -> Tally:
        """Return what the server has had of the source once one more connection than `before` has ended."""
        return self.serving.wait_ended(each, before.ended, _END_SECONDS)

    def _outcome(self, each: Exchange, label: str, expected: Expected | None, status: Status, observed: str) -> Outcome:
        expected = expected or Expected(Verdict.PERMIT, self.flow.id)
        family = each.address.version
        return Outcome(self.stage, each.source.id, each.destination.id, label, family, None, expected, status, observed)


def _provoke(plain: socket.socket, impostor: Impostor, request: bytes) -> str:
    """Go as far as the server lets an impostor, and return what it saw."""
    plain.settimeout(HANDSHAKE_SECONDS)
    try:
        if impostor.context is None:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")
            return f"{len(plain.recv(64))} bytes"
        with impostor.context.wrap_socket(plain, server_hostname=impostor.exchange.name) as connection:
            connection.sendall(request)
            return f"{len(connection.recv(64))} bytes"
    except OSError as refused:  # ssl.SSLError and TimeoutError among them
        return str(refused)


def _key(each: Exchange) -> tuple[str, Address, int]:
    return each.source.id, each.address, each.port
