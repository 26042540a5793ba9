"""Inline engines on a small network: every signature is needed, and a dead engine passes nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from conformance.inspection.ports import connection
from conformance.lab import Lab
from conformance.lab.rooted import Root
from conformance.outcome import Outcome, Status, Verdict
from netpolicy.topology.ends import End
from tests.inspection.living import Living, deviations, inspect, inspect_without, living_network, reload, stopped_twice
from tests.lab.small import PORT


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Living]:
    """Bring the network up with engines that pin the certificates of its ends."""
    root = Root.find()
    assert root is not None, "make setup"
    with living_network(root, tmp_path_factory.mktemp("inspection"), "inspected") as found:
        yield found


def test_all_cases_hold(living: Living) -> None:
    """Both ends have to show the certificates that are pinned for them, whatever the server takes."""
    outcomes = inspect(living)
    assert deviations(outcomes) == []
    assert sum(each.expected.verdict is Verdict.DENY for each in outcomes) >= 50


@pytest.mark.parametrize(
    "kind",
    [
        "tls-client-certificate",
        "tls-server-certificate",
        "tls-version",
        "tls-cipher-suite",
        "tls-name",
        "tls-alpn",
        "tls-server-first",
        "tls-first-bytes",
        "tls-client-hello",
        "tls-renegotiation-hello",
    ],
)
def test_each_signature_is_needed(kind: str, living: Living) -> None:
    """Without it, on both firewalls, something that must be stopped is not, or not for what it is."""
    outcomes = inspect_without(living, kind)
    assert [each for each in outcomes if each.status is Status.DEVIATION]


def test_renegotiation_is_stopped_twice(living: Living) -> None:
    """Where the second hello is not recognised, new keys are; without both, what follows is read by a lax server."""
    stopped_twice(living)


@pytest.mark.parametrize("end", ["alpha", "gamma"])
def test_each_pinned_certificate_is_needed(end: str, living: Living) -> None:
    """Without its line in the list, the end itself no longer passes."""
    lab, identities = living
    ends: list[End] = [*lab.topology.nodes.values(), *lab.topology.firewalls.values()]
    pinned = identities.fingerprints(ends)
    lab.pin({name: each for name, each in pinned.items() if name != end})
    try:
        outcomes = inspect(living, frozenset())
    finally:
        lab.pin(pinned)
    _assert_stopped(outcomes)


def _assert_stopped(outcomes: list[Outcome]) -> None:
    assert outcomes
    assert [each for each in outcomes if each.status is not Status.DEVIATION] == []


@pytest.mark.parametrize("firewall", ["edge", "core"])
def test_each_name_is_needed(firewall: str, living: Living) -> None:
    """Without its line in the list of one firewall, the server that is asked for by name is no longer reached."""
    lab, _ = living
    path = lab.engine_files(firewall) / "names-notice.lst"
    lines = path.read_text(encoding="ascii")
    assert len(lines.splitlines()) == 1
    path.write_text("", encoding="ascii")
    reload(lab)
    try:
        outcomes = inspect(living, frozenset())
    finally:
        path.write_text(lines, encoding="ascii")
        reload(lab)
    _assert_stopped(outcomes)


def _connect(lab: Lab, seconds: float = 5.0) -> socket.socket:
    alpha, gamma = (lab.topology.nodes[name].interface.addresses[0] for name in ("alpha", "gamma"))
    return connection(lab.namespace("alpha"), alpha, (str(gamma), PORT), seconds)


def test_a_killed_engine_passes_nothing_until_it_is_back(living: Living) -> None:
    """SIGKILL; the wire is dead; a new process; the wire lives."""
    lab, _ = living
    listening = lab.namespace("gamma").call(lambda: socket.create_server(("", PORT)))
    with listening:
        for engine in lab.engines.values():
            _connect(lab).close()
            engine.kill()
            with pytest.raises(TimeoutError):
                _connect(lab, 1.5)  # long enough for a second SYN
            engine.start()
            _connect(lab).close()


def test_what_was_dropped_stays_dropped(living: Living) -> None:
    """From its port no connection comes to be although the kernels forgot it; from the next one it does."""
    lab, _ = living
    at_once = b"\1\0\0\0\0\0\0\0"  # SO_LINGER: close with RST
    with lab.namespace("gamma").call(lambda: socket.create_server(("", PORT))) as listening:
        with _connect(lab) as dropped:
            own, target = dropped.getsockname(), dropped.getpeername()
            dropped.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with pytest.raises(TimeoutError):
                dropped.recv(1)
            for each in (dropped, listening.accept()[0]):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
                each.close()
        for firewall in lab.topology.firewalls:
            lab.flush_conntrack(firewall)
        with pytest.raises(TimeoutError):
            lab.namespace("alpha").call(lambda: socket.create_connection(target, 1.5, own))
        _connect(lab).close()


def test_a_reload_keeps_connections(living: Living) -> None:
    """TCP goes on across five reloads of every engine: nothing is lost, nothing begins anew."""
    lab, _ = living
    listening = lab.namespace("gamma").call(lambda: socket.create_server(("", PORT)))
    with listening, _connect(lab) as client:
        server, _ = listening.accept()
        with server:
            hello = bytes.fromhex("16030101100100010c0303") + bytes(244)
            client.sendall(hello)
            server.settimeout(10.0)
            assert server.recv(1024) == hello
            for number in range(5):
                reload(lab)
                # More of the hello that has begun, so that the engine goes on waiting for its end.
                part = bytes([number])
                client.sendall(part)
                assert server.recv(16) == part
                time.sleep(0.01)
