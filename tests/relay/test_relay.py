"""A relay in its network: what the kernel does not forward, what the relay cannot read, and what outlives it."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from conformance.application.book import Exchange, exchanges
from conformance.application.connection import Server, ask
from conformance.application.message import CODE, MAGIC, SOMEONE, MessageError, request_for
from conformance.application.serve import Serving, serve_lab
from conformance.application.tls import Terms, context
from conformance.lab import Lab
from conformance.lab.relay import Relay
from conformance.lab.scope import Scope
from conformance.outcome import Status
from conformance.probe.batch import FirewallProber, Probe
from conformance.probe.shape import Shape
from conformance.probe.wire import wired
from conformance.results import Results
from netpolicy.reasons import DenyReason, deny_counter
from tests.lab.small import PORT
from tests.relay.conftest import Living

_KILLS = int(os.environ.get("NETPOLICY_KILLS", "3"))
_IP_TRANSPARENT = 19


@pytest.fixture(name="serving", scope="module")
def _serving(living: Living) -> Iterator[Serving]:
    with serve_lab(living.lab, living.identities) as serving:
        yield serving


def _exchange(living: Living, family: int = 4) -> Exchange:
    found = exchanges(living.lab.topology, living.expectation.routing)
    return next(each for each in found if each.address.version == family)


def _connect(lab: Lab, exchange: Exchange, seconds: float = 5.0) -> socket.socket:
    target = (str(exchange.address), exchange.port)
    return lab.namespace("alpha").call(lambda: socket.create_connection(target, timeout=seconds))


def _ask(living: Living, exchange: Exchange, plain: socket.socket | None = None) -> None:
    sealing = living.identities.of(exchange.destination).sealing_public.read_bytes()
    ask(
        plain or _connect(living.lab, exchange),
        living.identities.of(exchange.source),
        request_for(exchange.flow.service, exchange.flow.affair),
        server=Server(exchange.uri, exchange.name, sealing, exchange.server_uri),
        terms=Terms.of(exchange.flow, exchange.alpn),
    )


def _context(living: Living, exchange: Exchange) -> ssl.SSLContext:
    own = living.identities.of(exchange.source)
    return context(own, frozenset({exchange.flow.assurance}), exchange.alpn, server=False)


def _forwarded(lab: Lab, firewall: str) -> tuple[int, int]:
    """Return how many packets a kernel has forwarded, of IPv4 and of IPv6."""
    namespace = lab.namespace(firewall)
    names, values = (
        line.split() for line in namespace.run(["cat", "/proc/net/snmp"], timeout=5).stdout.splitlines()[:2]
    )
    six = namespace.run(["cat", "/proc/net/snmp6"], timeout=5).stdout
    found = re.search(r"^Ip6OutForwDatagrams\s+(\d+)", six, re.MULTILINE)
    assert found is not None
    return int(values[names.index("ForwDatagrams")]), int(found[1])


@pytest.mark.usefixtures("serving")
def test_the_kernel_forwards_no_packet_of_a_relayed_flow(living: Living) -> None:
    """Messages are answered over both relays, and neither firewall's kernel has forwarded anything."""
    before = {firewall: _forwarded(living.lab, firewall) for firewall in living.lab.relays}
    for family in (4, 6):
        _ask(living, _exchange(living, family))
    assert {firewall: _forwarded(living.lab, firewall) for firewall in living.lab.relays} == before


@contextmanager
def _betraying(relay: Relay) -> Iterator[None]:
    """Have a relay write what it holds in clear into its log, as one would that is not the operator's any more."""
    path = relay.files / "haproxy.cfg"
    before = path.read_text()
    held = "    tcp-request content set-var(sess.held) req.payload(0,0),hex if { req.len gt 40 }\n"
    heard = "    tcp-response content set-var(sess.heard) res.payload(0,0),hex if { res.len gt 40 }\n"
    text = re.sub(r"^(?=    tcp-request content accept)", held, before, flags=re.MULTILINE)
    text = re.sub(r"^(?=    tcp-response content accept)", heard, text, flags=re.MULTILINE)
    text = text.replace(
        "stage=session ", "stage=session held=%{+Q}[var(sess.held)] heard=%{+Q}[var(sess.heard)] "
    ).replace("global\n    log stderr format raw", "global\n    log stderr len 65535 format raw")
    path.write_text(text)
    relay.reload()
    try:
        yield
    finally:
        path.write_text(before)
        relay.reload()


@pytest.mark.usefixtures("serving")
def test_a_relay_reads_no_record(living: Living) -> None:
    """Of a sealed notice and its answer, a relay that gives away all it holds has no name, address or code to give."""
    relay = living.lab.relays["edge"]
    secrets = [CODE.encode(), *(text.encode() for text in (SOMEONE.name, SOMEONE.address, "1980-04-01"))]
    with _betraying(relay):
        exchange = _exchange(living)
        said = len(relay.lines())
        _ask(living, exchange)
        line = relay.await_line(said, lambda each: "held" in each.fields, 5.0)
        assert line is not None
        held, heard = bytes.fromhex(line.fields["held"]), bytes.fromhex(line.fields["heard"])
        assert held.startswith(MAGIC)
        assert heard.startswith(MAGIC)
        assert [secret for secret in secrets if secret in held + heard] == []
        # The same tap does see what is not sealed, and the server does not take that.
        plain = MAGIC + b"".join(secrets) + bytes(40)
        said = len(relay.lines())
        ours = context(
            living.identities.of(exchange.source), frozenset({exchange.flow.assurance}), "app/1", server=False
        )
        with ours.wrap_socket(_connect(living.lab, exchange), server_hostname=exchange.name) as connection:
            connection.sendall(plain)
            assert connection.recv(100) == b""
        line = relay.await_line(said, lambda each: "held" in each.fields, 5.0)
        assert line is not None
        assert bytes.fromhex(line.fields["held"]) == plain


@pytest.mark.usefixtures("serving")
@pytest.mark.parametrize("firewall", ["edge", "core"])
def test_a_killed_relay_passes_nothing_until_it_is_back(firewall: str, living: Living) -> None:
    """SIGKILL in the middle of a connection: it ends, no other begins, and the counter says why; then all is back."""
    lab, exchange = living.lab, _exchange(living)
    relay, counter = lab.relays[firewall], deny_counter(DenyReason.RELAY)
    for _ in range(_KILLS):
        _ask(living, exchange)
        before = lab.counters(firewall)[counter]
        with _connect(lab, exchange) as plain:
            relay.kill()
            if firewall == "edge":
                plain.settimeout(10.0)
                assert _ended(plain)
                with pytest.raises(TimeoutError):
                    _connect(lab, exchange, 0.5)
            else:
                with pytest.raises((OSError, MessageError)):
                    _ask(living, exchange, plain)
        assert lab.counters(firewall)[counter] > before
        relay.start()
        _ask(living, exchange)


def _ended(plain: socket.socket) -> bool:
    try:
        return plain.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.usefixtures("serving")
def test_a_renewed_certificate_loses_no_connection(living: Living) -> None:
    """A connection that began before goes on; one that begins after meets the new certificate."""
    lab, exchange = living.lab, _exchange(living)
    plain = _connect(lab, exchange)
    ours = _context(living, exchange)
    with ours.wrap_socket(plain, server_hostname=exchange.name) as early:
        early.sendall(MAGIC)  # a relay waits three seconds for the first bytes, and reloading may take longer
        old = early.getpeercert(binary_form=True)
        living.identities.renew(lab.topology.firewalls["edge"], now=datetime.now(UTC))
        lab.renew_relays(living.identities.directory)
        with ours.wrap_socket(_connect(lab, exchange), server_hostname=exchange.name) as late:
            assert late.getpeercert(binary_form=True) != old
        _ask(living, exchange)
        early.sendall(bytes(8))  # a frame without a body: the server, which reads it, ends the connection
        assert early.recv(10) == b""


def test_a_reload_ends_when_no_old_worker_listens(living: Living) -> None:
    """However late an old one lets go: no connection that begins after a reload meets the old files."""
    relay = living.lab.relays["edge"]
    (old,) = relay.listening
    with ThreadPoolExecutor(1) as pool:
        os.kill(old, signal.SIGSTOP)
        try:
            reloading = pool.submit(relay.reload)
            while len(relay.listening) < 2:
                assert not reloading.done()
            with pytest.raises(TimeoutError):
                reloading.result(1.0)
        finally:
            os.kill(old, signal.SIGCONT)
        reloading.result(10.0)
        assert len(relay.listening) == 1
        assert old not in relay.listening


def test_a_relay_is_held_to_its_pairs(living: Living) -> None:
    """Were it another's, it could open no connection but those of its flows, and none by another way."""
    lab = living.lab
    firewall = lab.namespace("edge")

    def open_(port: int, seconds: float = 1.0) -> None:
        with socket.socket() as made:
            made.setsockopt(socket.SOL_IP, _IP_TRANSPARENT, 1)
            made.bind(("10.77.1.10", 0))
            made.settimeout(seconds)
            made.connect(("10.77.3.10", port))

    firewall.call(lambda: open_(PORT, 5.0))
    before = lab.counters("edge")
    with pytest.raises(OSError, match=r"timed out|not permitted"):
        firewall.call(lambda: open_(PORT + 1))
    assert lab.counters("edge")[deny_counter(DenyReason.OUTPUT)] > before[deny_counter(DenyReason.OUTPUT)]
    route = ["ip", "route", "add", "10.77.3.10/32", "dev", "lan"]
    assert firewall.run(route, timeout=5).returncode == 0
    try:
        with pytest.raises(OSError, match=r"timed out|not permitted|[Nn]o route"):
            firewall.call(lambda: open_(PORT))
    finally:
        firewall.run(["ip", "route", "del", "10.77.3.10/32", "dev", "lan"], timeout=5)
    astray = deny_counter(DenyReason.SPOOFED_DESTINATION)
    assert lab.counters("edge")[astray] > before[astray]


def test_a_probe_of_a_dead_relay_is_a_deviation(living: Living) -> None:
    """The matrix finds out that a permitted connection is not taken."""
    lab, topology = living.lab, living.lab.topology
    permitted = living.expectation.permits["edge"][0]
    ingress, _, source, destination = permitted.ends
    for dead in (False, True):
        if dead:
            lab.relays["edge"].kill()
        results = Results()
        try:
            with lab.isolated(), wired(lab, topology.firewalls["edge"], Scope(lab)) as wire:
                judge = living.expectation.judge("edge")
                prober = FirewallProber(lab, topology, judge, wire, results, living.expectation.permits["edge"])
                prober.run([Probe("t", "alpha", "gamma", "SYN", Shape.SYN, ingress, source, destination, PORT)])
        finally:
            if dead:
                lab.relays["edge"].start()
        observed = [each.observed for each in results.outcomes]
        assert len(observed) == (1 if dead else 0)
        assert not dead or "deny_relay by 1" in observed[0]
        assert results.count(Status.PASS) == (0 if dead else 1)
