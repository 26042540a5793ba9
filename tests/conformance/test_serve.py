"""The application's servers: what they count, whom they refuse and why, and what becomes of their own errors."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest

from conformance.application.book import Exchange, exchanges
from conformance.application.connection import Server, ask
from conformance.application.message import HEADER, MAX_BODY, StatusInquiry, encode, request_for
from conformance.application.serve import Serving, Tally, serve_lab
from conformance.application.tls import PeerError, Terms, context
from conformance.lab import Lab
from conformance.pki import Identities, issue_identities
from netpolicy.intent.routing import Routing
from netpolicy.topology.model import Assurance
from tests.lab.small import PORT

_ALPN = "app/1"
_GAMMA = ip_address("fd77:0:0:3::a")
_SERVER = "urn:netpolicy:conformance:hall-server:gamma"
_SECONDS = 5.0
_NOTICE = request_for("app", "test")


@pytest.fixture(name="identities")
def _identities(lab: Lab, tmp_path: Path) -> Identities:
    return issue_identities(lab.topology, tmp_path / "identities", now=datetime.now(UTC))


@pytest.fixture(name="serving")
def _serving(lab: Lab, identities: Identities) -> Iterator[Serving]:
    with serve_lab(lab, identities) as serving:
        yield serving


def _connect(lab: Lab) -> socket.socket:
    target = (str(_GAMMA), PORT)
    return lab.namespace("alpha").call(lambda: socket.create_connection(target, timeout=_SECONDS))


def _ask(lab: Lab, identities: Identities) -> None:
    alpha = identities.of(lab.topology.nodes["alpha"])
    terms = Terms(Assurance.INSPECT, _ALPN, "app", "test")
    ask(_connect(lab), alpha, _NOTICE, server=Server(_SERVER, "gamma"), terms=terms)


def _exchange(lab: Lab, family: int = 6) -> Exchange:
    found = exchanges(lab.topology, Routing(lab.topology))
    return next(each for each in found if each.address.version == family)


def _tell(lab: Lab, identities: Identities, serving: Serving, said: bytes) -> Tally:
    """Say something as alpha, whom the flow permits, over mutual TLS; return what the server has had of it."""
    ours = context(identities.of(lab.topology.nodes["alpha"]), frozenset({Assurance.INSPECT}), _ALPN, server=False)
    with ours.wrap_socket(_connect(lab)) as connection:
        connection.sendall(said)
        with suppress(ConnectionError):  # the server does not wait for the end of what it refuses
            connection.unwrap()
    return serving.wait_ended(_exchange(lab), 0, _SECONDS)


def test_an_exchange_is_counted(lab: Lab, identities: Identities, serving: Serving) -> None:
    """A request that is answered counts with all its bytes, and only for its own server and client."""
    _ask(lab, identities)
    tally = serving.wait_ended(_exchange(lab), 0, _SECONDS)
    assert tally == Tally(received=len(encode(_NOTICE)), ended=1, refusal="")
    assert serving.tally(_exchange(lab, 4)) == Tally()
    assert list(serving.refusals) == []


@pytest.mark.parametrize(
    ("said", "had"),
    [
        (b"GET / HTTP/1.1\r\nHost: gamma\r\n\r\n", (HEADER.size, "this is not a frame of the application")),
        (b"JUKI", (4, f"the peer ended after 4 of {HEADER.size} bytes")),
        (encode(StatusInquiry())[:-3], (len(encode(StatusInquiry())) - 3, "the peer ended after")),
        (HEADER.pack(b"JUKI", 1, 0, 0, MAX_BODY + 1) + b"a" * 99, (HEADER.size, "is not between 1 and")),
        (encode(StatusInquiry()), (len(encode(StatusInquiry())), "'status-inquiry' is not for service 'app'")),
        (HEADER.pack(b"JUKI", 1, 0, 0, 2) + b"{}", (HEADER.size + 2, "this is not a message")),
    ],
)
def test_bytes_that_are_no_message_count_too(
    lab: Lab, identities: Identities, serving: Serving, said: bytes, had: tuple[int, str]
) -> None:
    """Zero received means that nothing was read, not that nothing was understood."""
    tally = _tell(lab, identities, serving, said)
    assert (tally.ended, tally.received) == (1, had[0])
    assert had[1] in tally.refusal


def test_a_silent_client_does_not_stay(lab: Lab, serving: Serving) -> None:
    """A client that connects and says nothing is given up within the time for a handshake."""
    with _connect(lab):
        tally = serving.wait_ended(_exchange(lab), 0, _SECONDS)
    assert tally.ended == 1
    assert tally.received == 0
    assert "timed out" in tally.refusal


def test_a_client_asks_no_other_server(lab: Lab, identities: Identities, serving: Serving) -> None:
    """A server with a valid certificate of another role gets no request, though it would take one."""
    beta, gamma = (identities.of(lab.topology.nodes[name]) for name in ("beta", "gamma"))
    for name in ("chain.pem", "key.pem"):
        shutil.copy(beta.directory / name, gamma.directory / name)
    with pytest.raises(PeerError, match="the peer is urn:netpolicy:conformance:town-server:beta"):
        _ask(lab, identities)
    assert serving.wait_ended(_exchange(lab), 0, _SECONDS).received == 0


def test_an_error_of_a_server_is_raised(lab: Lab, identities: Identities) -> None:
    """A server that cannot read its own key fails the run; it does not look like a refusal."""
    identities.of(lab.topology.nodes["gamma"]).key.unlink()

    def serve() -> None:
        with serve_lab(lab, identities) as serving:
            with _connect(lab) as plain:
                assert plain.recv(1) == b""
            assert list(serving.refusals) == []

    with pytest.raises(FileNotFoundError):
        serve()


def test_servers_are_gone_afterwards(lab: Lab, identities: Identities) -> None:
    """When serving ends, its sockets are closed: a client inside the server's own namespace is refused."""
    with serve_lab(lab, identities):
        _ask(lab, identities)
    target = (str(_GAMMA), PORT)
    with pytest.raises(ConnectionRefusedError):
        lab.namespace("gamma").call(lambda: socket.create_connection(target, timeout=_SECONDS))
