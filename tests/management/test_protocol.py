"""Whatever comes is a request, or is refused; nothing else comes of it."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance_image.management import protocol
from appliance_image.management.errors import LinkError, RefusedError, printable
from appliance_image.management.operations import Operations
from appliance_image.management.privileged import Privileged
from appliance_image.management.protocol import COMMANDS, MOST_REQUEST, Request
from appliance_image.management.recorder import Recorder
from appliance_image.management.transport import Lines, Plain

_ID = "0" * 32
_FUZZ = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
_SLOW = settings(_FUZZ, max_examples=40)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
_NEAR = st.fixed_dictionaries(
    {
        "command": st.sampled_from([*COMMANDS, "shell", ""]) | _JSON,
        "arguments": st.dictionaries(st.sampled_from(["request", "confirm", "since", "most", "x"]), _JSON) | _JSON,
        "size": st.integers() | _JSON,
    }
)
"""Almost requests."""


@_FUZZ
@given(st.binary(max_size=200) | _JSON.map(lambda value: json.dumps(value).encode()))
def test_any_line(line: bytes) -> None:
    """A line is an object or is refused."""
    with suppress(RefusedError):
        assert isinstance(protocol.decode(line), dict)


@_FUZZ
@given(_NEAR)
def test_any_request(document: dict[str, object]) -> None:
    """An object is a request with every argument in its bounds, or is refused."""
    try:
        found = protocol.request(document)
    except RefusedError as error:
        refused = error
        found = None
    if found is None:
        assert refused.code in {"malformed", "unknown-command", "oversize"}
        assert refused.text.isprintable()
        return
    assert found.command in COMMANDS
    assert set(found.arguments) == set(COMMANDS[found.command].arguments)
    assert 0 <= found.size <= COMMANDS[found.command].upload
    assert protocol.request(protocol.decode(found.line().rstrip(b"\n"))) == found


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 4000,
        b'{"command":"status","command":"status","arguments":{},"size":0}',
        b'{"command":"status","arguments":{},"size":NaN}',
        b'{"command":"status","arguments":{},"size":false}',
        b'{"command":"status","arguments":{},"size":0,"more":1}',
        b'{"command":"journal","arguments":{"since":0,"most":1},"size":0}',
        b'{"command":"journal","arguments":{"since":1,"most":100000},"size":0}',
        b'{"command":"apply","arguments":{"request":"' + b"0" * 32 + b'","confirm":5},"size":1}',
        b'{"command":"confirm","arguments":{"request":"../../x"},"size":0}',
        b'{"command":"status","arguments":{},"size":1}',
        b"\xff\xfe",
        b"GET / HTTP/1.1",
        b"1" * 4095,
    ],
)
def test_malformed(line: bytes) -> None:
    """Each of these is refused."""
    with pytest.raises(RefusedError):
        protocol.request(protocol.decode(line))


@_FUZZ
@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=12), st.integers(1, 60))
def test_lines_do_not_depend_on_how_they_come(parts: list[bytes], most: int) -> None:
    """Lines are the same however they were cut on the way, and one that is too long is refused before it is held."""
    whole = b"".join(parts)
    lines = Lines(_Parts(parts), most)
    expected = whole.split(b"\n")
    for wanted in expected[:-1]:
        if len(wanted) + 1 > most:
            with pytest.raises(RefusedError, match="longer"):
                lines.line()
            return
        assert lines.line() == wanted
    if not expected[-1]:
        assert lines.line() is None
        return
    with pytest.raises(RefusedError):
        lines.line()


class _Parts:
    """A transport that brings parts as they are."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = list(parts)

    def receive(self, most: int) -> bytes:
        """Return the next one, or as much of it."""
        if not self._parts:
            return b""
        first, rest = self._parts[0][:most], self._parts[0][most:]
        self._parts[:1] = [rest] if rest else []
        return first

    def send(self, data: bytes) -> None:
        """Nothing is sent."""
        raise AssertionError(data)


class _Nothing:
    """Operations that must not be called."""

    def __getattr__(self, name: str) -> object:
        if name == "record":
            return lambda _event, **_fields: None
        raise AssertionError(name)


@_SLOW
@given(st.binary(max_size=300) | st.builds(lambda value: json.dumps(value).encode() + b"\n", _JSON | _NEAR))
def test_the_privileged_half_does_nothing_that_it_was_not_asked(said: bytes) -> None:
    """Whatever the other half says, should it be somebody else's: no function is called for what is no request."""
    ours, theirs = socket.socketpair()
    privileged = Privileged(cast("Operations", _Nothing()), Path("/nonexistent"))
    with theirs:
        attending = threading.Thread(target=privileged.attend, args=(ours,))
        attending.start()
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        attending.join(10)
        assert not attending.is_alive()
        answer = theirs.recv(1 << 16)
    if answer:
        assert protocol.reply(protocol.decode(answer))[0] == "refused"


@_FUZZ
@given(_JSON.filter(lambda value: isinstance(value, dict)))
def test_any_reply(document: dict[str, object]) -> None:
    """A client is not confused by replies either."""
    try:
        kind, said = protocol.reply(document)
    except RefusedError:
        return
    if kind == "refused":
        assert protocol.refused(said).text.isprintable()


@_FUZZ
@given(st.text())
def test_printable(text: str) -> None:
    """What a peer says cannot move a terminal's cursor."""
    assert printable(text).replace("\n", "").isprintable()


def test_slow_is_too_slow() -> None:
    """The limit is for a stage, not for each byte of it."""
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.05):
            theirs.send(b"x")

    with ours, theirs:
        dripping = threading.Thread(target=drip)
        dripping.start()
        lines = Lines(Plain(ours, 0.4), MOST_REQUEST)
        with pytest.raises(LinkError, match="too slow"):
            lines.line()
        stop.set()
        dripping.join()


def test_refusals_are_counted_when_there_are_many() -> None:
    """A peer that is refused a thousand times makes few records, and none of the thousand is lost."""
    kept: list[dict[str, object]] = []
    now = [0.0]
    recorder = Recorder(lambda event, **fields: kept.append({"event": event, **fields}), lambda: now[0])
    for _ in range(1000):
        recorder.refused({"code": "x"})
    assert len(kept) == 32
    now[0] += 2.0
    recorder.refused({"code": "x"})
    assert kept[-1]["unrecorded"] == 968
    for _ in range(5):
        recorder.refused({"code": "x"})
    recorder.login(session="s")
    assert [each.get("unrecorded") for each in kept[-2:]] == [5, None]


def test_requests_come_back_as_they_were() -> None:
    """A request's line is read as that request."""
    for name, command in COMMANDS.items():
        values = {"request": _ID, "confirm": 60, "since": 1, "most": 1}
        request = Request(name, {each: values[each] for each in command.arguments}, 1 if command.upload else 0)
        assert protocol.request(protocol.decode(request.line()[:-1])) == request
