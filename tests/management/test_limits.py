"""Hostile peers that have a certificate: too much, too slow, too many, and out of order."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from appliance_image.management.client import Connection, connected
from appliance_image.management.errors import LinkError, RefusedError
from appliance_image.management.protocol import MOST_REQUEST, Request
from tests.management.network import BOUNDS, PATIENCE, Managed, Network
from tests.waiting import until

_ID = "c" * 32
_STATUS = Request("status", {})


def _say(connection: Connection, data: bytes) -> None:
    connection._plain.within(10)
    connection._inner.send(data)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"x" * (MOST_REQUEST + 1), "oversize"),
        (b"x" * (1 << 20), "oversize"),
        (b"[" * 4000 + b"\n", "malformed"),
        (b'{"command":"shell","arguments":{},"size":0}\n', "unknown-command"),
        (Request("apply", {"request": _ID, "confirm": 60}, (64 << 20) + 1).line(), "oversize"),
        (Request("apply", {"request": _ID, "confirm": 60}, 2**70).line(), "oversize"),
        (_STATUS.line() + _STATUS.line(), "malformed"),
        (b'{"do":"login"}\n', "malformed"),
    ],
    ids=["a long line", "a very long one", "deep", "no command", "a large bundle", "a huge one", "two", "ours"],
)
def test_refused_requests(network: Network, managed: Managed, said: bytes, code: str) -> None:
    """Each is refused with its reason, ends the connection and is recorded."""
    with network.knock("town-fw", network.console) as connection:
        with suppress(LinkError):
            _say(connection, said)
        with pytest.raises((RefusedError, LinkError)) as refused:
            connection._last(lambda _text: None)
        if isinstance(refused.value, RefusedError):
            assert refused.value.code == code
        with pytest.raises(LinkError):
            connection.ask(_STATUS)
    assert until(lambda: bool(managed.firewall.events("refused")))
    (record,) = managed.firewall.events("refused")
    assert (record["code"], record["stage"]) == (code, "request")
    assert managed.firewall.calls == []


def test_too_many_requests(network: Network, managed: Managed) -> None:
    """A connection takes a bounded number of requests."""
    with network.knock("town-fw", network.console) as connection:
        for _ in range(BOUNDS.requests):
            connection.ask(_STATUS)
        with pytest.raises(RefusedError) as refused:
            connection.ask(_STATUS)
    assert refused.value.code == "too-many"
    assert until(lambda: bool(managed.firewall.events("refused")))


def test_a_request_that_drips(network: Network, managed: Managed) -> None:
    """One byte now and then keeps no connection open."""
    begun = time.monotonic()
    with network.knock("town-fw", network.console) as connection:

        def drip() -> None:
            while True:
                _say(connection, b" ")
                time.sleep(0.1)

        with pytest.raises(LinkError):
            drip()
    assert time.monotonic() - begun < PATIENCE.request + 10
    assert until(lambda: bool(managed.firewall.events("refused")))
    assert "too slow" in str(managed.firewall.events("refused")[0]["reason"])


@pytest.mark.parametrize("sent", [0, 1, 1000])
def test_an_upload_that_stalls(network: Network, managed: Managed, sent: int) -> None:
    """An upload that does not come is given up; nothing was applied, nothing is left, and the next one is welcome."""
    with network.knock("town-fw", network.console) as connection:
        _say(connection, Request("apply", {"request": _ID, "confirm": 60}, 100_000).line())
        assert connection._lines.line() == b'{"continue":100000}'
        _say(connection, b"x" * sent)
        with pytest.raises((LinkError, RefusedError)):
            connection._last(lambda _text: None)
    assert until(lambda: not list(managed.firewall._work.glob("upload-*")))
    assert managed.firewall.calls == []
    assert managed.firewall.events("remote") == []
    with network.knock("town-fw", network.console) as connection:
        connection.ask(Request("rollback", {"request": _ID}))


def test_silence_before_each_handshake(network: Network, managed: Managed) -> None:
    """Who says nothing at all is cut off, before and after the outer layer."""

    def mute() -> float:
        with socket.create_connection(("127.0.0.1", 17100), 5) as plain:
            plain.settimeout(PATIENCE.handshake + 10)
            begun = time.monotonic()
            plain.recv(1)
            return time.monotonic() - begun

    assert network.lab.namespace("town-fw").call(mute) < PATIENCE.handshake + 10
    assert until(lambda: bool(managed.firewall.events("refused")))


def test_one_operator_does_not_take_all_connections(network: Network, managed: Managed) -> None:
    """One operator has some connections, all have a few more; and with them gone others are served."""
    with ExitStack() as stack:
        for _ in range(BOUNDS.of_one):
            stack.enter_context(network.knock("town-fw", network.console))
        with pytest.raises(RefusedError) as refused:
            stack.enter_context(network.knock("town-fw", network.console))
        assert refused.value.code == "too-many"
    assert until(lambda: bool(managed.firewall.events("refused")))
    with network.knock("town-fw", network.console) as connection:
        connection.ask(_STATUS)


def test_a_crowd(network: Network, managed: Managed) -> None:
    """More connections than there are places: the rest is turned away at once, and afterwards all is well."""
    held = [
        network.lab.namespace("town-fw").call(lambda: socket.create_connection(("127.0.0.1", 17100), 5))
        for _ in range(BOUNDS.connections + 4)
    ]
    assert until(lambda: any(each["code"] == "too-many" for each in managed.firewall.events("refused")))
    for each in held:
        each.close()

    def served() -> bool:
        try:
            with network.knock("town-fw", network.console) as connection:
                return bool(connection.ask(_STATUS)["firewall"] == "town-fw")
        except (LinkError, RefusedError):
            return False

    assert until(served)


def test_operators_at_the_same_time(network: Network, managed: Managed) -> None:
    """Several read at the same time, each gets its own answer."""
    found: list[object] = []

    def read(since: int) -> None:
        with connected(managed.target, network.console) as connection:
            for _ in range(5):
                answer = connection.ask(Request("journal", {"since": since, "most": 3}))
                found.append(answer["records"][0] == f'{{"seq":{since}}}')

    threads = [
        threading.Thread(target=network.lab.namespace("console").call, args=(lambda since=since: read(since),))
        for since in (1, 400, 900)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert found == [True] * 15


def test_a_disk_without_room(network: Network, managed: Managed, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload that cannot be kept is refused as such."""
    monkeypatch.setattr(managed.firewall, "_work", Path("/proc/nowhere"))
    with network.knock("town-fw", network.console) as connection:
        with pytest.raises(RefusedError) as refused:
            connection.ask(Request("image-update", {"request": _ID}, 10))
        assert refused.value.code == "no-room"
        assert connection.ask(_STATUS)["firewall"] == "town-fw"
