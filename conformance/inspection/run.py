"""Every case against every inspected flow, each with a server that would take anything."""

from __future__ import annotations

import ssl
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from conformance.application.book import Exchange, exchanges
from conformance.application.message import encode, request_for
from conformance.expect import Expectation
from conformance.inspection.alerts import Alert, Ends, Watch
from conformance.inspection.attempt import PATIENCE, attempt, ends_of
from conformance.inspection.case import AGAIN, REPEATED, Again, Case
from conformance.inspection.cases import Cases
from conformance.inspection.ports import connection
from conformance.inspection.renegotiation import renegotiate
from conformance.inspection.servers import LaxServer, lax_plain, lax_tls
from conformance.lab import Lab, LabError
from conformance.lab.scope import Scope
from conformance.outcome import Expected, Outcome, Status, Verdict
from conformance.pki import Identities
from netpolicy.topology.ends import source_limits
from netpolicy.topology.model import Address, Firewall

STAGE = "inspect"

_CONNECT_SECONDS = 10.0
"""For a SYN, which no case has stopped, to be sent again several times: a busy machine is no error."""
_ALERT_SECONDS = 3.0
_LONG_PATIENCE = 4.0
"""Seconds that a client waits where several relays, one after the other, must make or refuse a connection, and where
nothing may stop it: a busy machine is no deviation."""
_SHARE = 0.5
"""Of a flow's rate that is used, so that nothing is said about rates."""
_ROUND = 6
"""Cases of one path between two clearings of the firewalls' tables; some take two connections, and all of them are
fewer than one source of any flow may have."""
_POLL = 0.02
_SETTLE = 0.05
"""Seconds in which a server that was reached would have read what was sent to it."""


def run_inspection(
    lab: Lab,
    identities: Identities,
    expectation: Expectation,
    scope: Scope,
    *,
    progress: Callable[[str], None] = lambda _line: None,
    wanted: Callable[[Case], bool] = lambda _case: True,
) -> list[Outcome]:
    """Try every case on one pair of each flow in each family.

    Args:
        lab: With engines that hold ends to the certificates of `identities`.
        identities: Further ones are forged.
        expectation: Says which flows are open.
        scope: Admits the connections.
        progress: Told how many cases are done.
        wanted: Which cases are tried.

    Raises:
        ScopeError: Something may not be sent.

    """
    chosen: dict[tuple[str, int], Exchange] = {}
    for each in exchanges(lab.topology, expectation.routing):
        if not isinstance(each.destination, Firewall) and expectation.closed(each.flow) is None:
            chosen.setdefault((each.flow.id, each.address.version), each)
    cases = Cases(identities, list(chosen.values()))
    lab.renew_relays(identities.directory)  # some of them have revoked certificates
    watch = Watch({f"{firewall}/{interface}": engine for (firewall, interface), engine in lab.engines.items()})
    work = Path(tempfile.mkdtemp(prefix="netpolicy-lax-"))

    trials = {key: _Trial(lab, expectation, scope, watch, each, work) for key, each in chosen.items()}
    waiting = {key: list(filter(wanted, cases.of(each))) for key, each in chosen.items()}
    found: list[Outcome] = []
    try:
        with ThreadPoolExecutor(max_workers=max(1, len(chosen))) as pool:
            while any(waiting.values()):
                # What an engine drops stays in the kernel's table of connections, where it counts for the limits.
                for firewall in lab.topology.firewalls:
                    lab.flush_conntrack(firewall)
                rounds: dict[tuple[Address, int], list[tuple[_Trial, Case]]] = {}
                for key, rest in waiting.items():
                    # Flows that share a server take turns, since only one server listens there.
                    turns = rounds.setdefault((chosen[key].address, chosen[key].port), [])
                    turns.extend((trials[key], rest.pop(0)) for _ in rest[:_ROUND])
                for outcomes in pool.map(lambda turns: [trial.run(case) for trial, case in turns], rounds.values()):
                    found.extend(outcomes)
                progress(f"{len(found)} cases on {len(chosen)} paths")
        return found
    finally:
        for path in work.iterdir():
            path.unlink()
        work.rmdir()


@dataclass(slots=True)
class _Seen:
    """What came of one connection."""

    ends: Ends | None = None
    client: str = ""
    """How it ended for the client."""
    session: ssl.SSLSession | None = None
    """What could be resumed."""
    resumed: bool = False
    read: bytes = b""
    """What the client has had of an answer."""


@dataclass(slots=True)
class _Trial:
    """The cases of one exchange, one after the other: its server has one address."""

    lab: Lab
    expectation: Expectation
    scope: Scope
    watch: Watch
    exchange: Exchange
    work: Path
    _due: float = 0.0
    _said: dict[str, int] = field(default_factory=dict)
    """How many lines each relay had said before a case."""

    def run(self, case: Case) -> Outcome:
        """Try one case."""
        request = case.request or encode(request_for(self.exchange.flow.service, self.exchange.flow.affair))
        self._said = self._mark()
        try:
            if case.again is not None:
                return self._renegotiate(case, case.again, request)
            with self._server(case) as server:
                seen = self._connect(case, request, None)
                if case.twice:
                    if seen.session is None:
                        return self._outcome(case, Status.ERROR, f"no session to resume: {seen.client}")
                    before = len(self._received(case, server, len(request)))
                    seen = self._connect(case, request, seen.session)
                    received = self._received(case, server, before + len(request))
                    return self._conclude(case, seen, len(received) - before, request)
                received = self._received(case, server, len(request))
                if self.exchange.relays and case.server is None:
                    received = _beyond_handshake(received)
                return self._conclude(case, seen, len(received), request)
        except (LabError, OSError) as failed:
            return self._outcome(case, Status.ERROR, str(failed))

    def _renegotiate(self, case: Case, again: Again, request: bytes) -> Outcome:
        """Try a second handshake; what was read before it does not count."""
        self._pace()
        each = self.exchange
        client, server = self.lab.namespace(each.source.id), self.lab.namespace(each.destination.id)
        self.scope.admit_connections(client, [each.address])
        came = renegotiate(client, server, each, again, request, work=self.work)
        return self._conclude(case, _Seen(came.ends, came.client), came.received, request)

    def _received(self, case: Case, server: LaxServer, wanted: int) -> bytes:
        """Return what came to the server's application; what is on its way there may pass several relays."""
        deadline = time.monotonic() + (0.0 if case.stopped_by else _ALERT_SECONDS)
        while len(server.received()) < wanted and time.monotonic() < deadline:
            time.sleep(_POLL)
        return server.received()

    def _server(self, case: Case) -> AbstractContextManager[LaxServer]:
        each = self.exchange
        namespace = self.lab.namespace(each.destination.id)
        if case.server is None:
            return lax_plain(namespace, each.address, each.port, case.greeting)
        return lax_tls(namespace, each.address, each.port, case.server, work=self.work)

    def _connect(self, case: Case, request: bytes, session: ssl.SSLSession | None) -> _Seen:
        self._pace()
        each, seen = self.exchange, _Seen()
        namespace = self.lab.namespace(each.source.id)
        self.scope.admit_connections(namespace, [each.address])
        target = (str(each.address), each.port)
        try:
            plain = connection(namespace, each.client_address, target, _CONNECT_SECONDS)
        except OSError as failed:
            seen.client = f"no connection: {failed}"
            return seen
        with plain:
            seen.ends = ends_of(plain)
            try:
                hearing = _LONG_PATIENCE if each.relays else PATIENCE
                patience = hearing if case.stopped_by else _LONG_PATIENCE
                written = attempt(plain, case, request, session, patience=patience, hearing=hearing)
                seen.client = "answered"
                if written is not None:
                    seen.session, seen.resumed, seen.read = written.session, written.resumed, written.read
            except OSError as failed:  # ssl.SSLError and TimeoutError among them
                seen.client = str(failed) or type(failed).__name__
        time.sleep(_SETTLE)
        return seen

    def _pace(self) -> None:
        flow = self.exchange.flow
        rate = source_limits(self.expectation.topology, flow).rate or flow.limits.rate
        if rate is not None:
            time.sleep(max(0.0, self._due - time.monotonic()))
            self._due = time.monotonic() + 1.0 / (rate * _SHARE)

    def _conclude(self, case: Case, seen: _Seen, received: int, request: bytes) -> Outcome:
        if seen.ends is None:
            return self._outcome(case, Status.ERROR, seen.client)
        if not case.stopped_by:
            return self._passed(case, seen, received, request)
        alerts = self._await_alerts(case, seen.ends)
        if received and case.twice and not seen.resumed:
            return self._outcome(case, Status.ERROR, "the server has not resumed the session")
        # A request may reach a server whose answer may not come back.
        complaint = _complaint(case, alerts, len(seen.read) if case.server and case.server.says else received)
        said = ", ".join(sorted({str(each) for each in alerts})) or "nothing"
        if complaint:
            observed = f"{complaint}; engines and relays said: {said}; the client saw: {seen.client}"
            return self._outcome(case, Status.DEVIATION, observed)
        return self._outcome(case, Status.PASS, f"0 bytes; {said}")

    def _passed(self, case: Case, seen: _Seen, received: int, request: bytes) -> Outcome:
        assert seen.ends is not None  # noqa: S101 - the caller has looked
        # A segment that its sender repeats, because its acknowledgement was late, is dropped, and nobody misses it.
        alerts = [each for each in self._alerts(seen.ends) if each.signature != REPEATED]
        if seen.resumed:
            return self._outcome(case, Status.DEVIATION, "the session was resumed")
        if alerts or received != len(request):
            said = ", ".join(sorted({each.signature for each in alerts})) or "nothing"
            observed = f"the application has read {received} bytes of {len(request)}; engines and relays said: {said}"
            return self._outcome(case, Status.DEVIATION, f"{observed}; the client saw: {seen.client}")
        return self._outcome(case, Status.PASS, "passed")

    def _await_alerts(self, case: Case, ends: Ends) -> list[Alert]:
        deadline = time.monotonic() + _ALERT_SECONDS
        while not _stopping(case, found := self._alerts(ends)) and time.monotonic() < deadline:
            time.sleep(_POLL)
        return found

    def _mark(self) -> dict[str, int]:
        return {relay: len(self.lab.relays[relay].lines()) for relay in self.exchange.relays}

    def _alerts(self, ends: Ends) -> list[Alert]:
        """Return what engines and relays have said of the case at hand, on every connection of its way."""
        found = self.watch.alerts(ends)
        for relay, count in self._said.items():
            for line in self.lab.relays[relay].lines()[count:]:
                # Relays go on from the client's own address and port.
                if (line.client, line.port) == ends[:2] and line.denied is not None:
                    found.append(Alert(f"{relay}/relay", 0, f"relay-{line.denied}", line.flow, blocked=True))
        return found

    def _outcome(self, case: Case, status: Status, observed: str) -> Outcome:
        each = self.exchange
        verdict = Verdict.DENY if case.stopped_by else Verdict.PERMIT
        expected = Expected(verdict, each.flow.id)
        return Outcome(
            STAGE,
            each.source.id,
            each.destination.id,
            case.label,
            each.address.version,
            None,
            expected,
            status,
            observed,
        )


def _beyond_handshake(received: bytes) -> bytes:
    """Return what follows the TLS handshake records and alerts at the beginning: those are the relay's own."""
    while len(received) >= _RECORD and received[0] in {_ALERT, _HANDSHAKE}:
        received = received[_RECORD + int.from_bytes(received[3:5], "big") :]
    return received


_RECORD, _ALERT, _HANDSHAKE = 5, 21, 22
"""Length of a record's header, and types of records (RFC 8446, 5.1)."""


def _complaint(case: Case, alerts: list[Alert], received: int) -> str | None:
    """Return what is wrong with how a case was stopped."""
    if received:
        return f"the application has read {received} bytes"
    if not _stopping(case, alerts):
        return f"{' or '.join(sorted(case.stopped_by))} should have stopped it"
    strange = {each.signature for each in alerts} - case.stopped_by - case.also - AGAIN
    return f"unexpected alerts: {', '.join(sorted(strange))}" if strange else None


def _stopping(case: Case, alerts: Iterable[Alert]) -> list[Alert]:
    """Return the alerts of what was dropped by a signature that the case is about."""
    return [each for each in alerts if each.blocked and each.signature in case.stopped_by]
