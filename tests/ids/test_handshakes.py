"""What either end can say to the other before both certificates were judged: bounded, whatever it is made of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import TCP
from scapy.packet import Packet, Raw

from ids_rules.tls_policy import EARLY_BYTES
from ids_rules.version import NEWEST
from netpolicy.topology.load import load_topology
from tests.ids.cases import INTERFACE, prepare
from tests.ids.conversations import CLIENT, SERVER
from tests.ids.engine import first_drops
from tests.ids.records import records
from tests.ids.sessions import PORT
from tests.ids.transcript import Ends, Turn, tcp_session
from tests.ids.verify import CONFIGURATION

_TOPOLOGY = Path(__file__).parents[2] / "topology.yaml"
_LENGTH = 4 * EARLY_BYTES
_JUNK = (b"not seen " * _LENGTH)[:_LENGTH]
_ALERT, _HANDSHAKE, _DATA, _HEARTBEAT = 21, 22, 23, 24
_FIRST_PORT = 40000
_UNENDING = b"\x63\xff\xff\xff"
"""A handshake message of a type that nobody has, 16 MiB long."""


def _records(kind: int, data: bytes) -> bytes:
    """Return records of TLS 1.2 that carry some bytes (RFC 5246, 6.2.1)."""
    parts = [data[begin : begin + 0x4000] for begin in range(0, len(data), 0x4000)]
    return b"".join(bytes((kind, 3, 3)) + len(part).to_bytes(2, "big") + part for part in parts)


def _message(kind: int, body: bytes) -> bytes:
    """Return a handshake message (RFC 5246, 7.4)."""
    return bytes((kind,)) + len(body).to_bytes(3, "big") + body


def _certificates(record: bytes) -> bytes:
    """Return a Certificate message with the certificates of another one, and junk as one more."""
    listed = record[12:] + len(_JUNK).to_bytes(3, "big") + _JUNK
    return _records(_HANDSHAKE, _message(11, len(listed).to_bytes(3, "big") + listed))


def _by_anybody(own: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield what an end may go on with; `own` is the record of the certificate pinned for it, which is public."""
    unending = _records(_HANDSHAKE, _UNENDING + _JUNK)
    yield "an unending message", unending
    yield "an unending Certificate", _records(_HANDSHAKE, b"\x0b\xff\xff\xff\xff\xff\xfc" + own[12:] + _JUNK)
    yield "many small messages", _records(_HANDSHAKE, bytes(_LENGTH))
    yield "one byte a record", b"".join(_records(_HANDSHAKE, bytes((each,))) for each in _UNENDING + _JUNK[:6000])
    yield "alerts", _records(_ALERT, b"\x01\0") * (_LENGTH // 7)
    yield "a long alert", _records(_ALERT, _JUNK)
    yield "application data", _records(_DATA, _JUNK)
    yield "heartbeats", _records(_HEARTBEAT, _JUNK)
    yield "changes of keys", _records(20, b"\x01") * (_LENGTH // 6)
    yield "other keys, data", _records(20, b"\x01") + _records(_DATA, _JUNK)
    yield "other keys, handshake", _records(20, b"\x01") + _records(_HANDSHAKE, _JUNK)
    yield "a long chain", _certificates(own)


def _conversations(turns: list[Turn]) -> Iterator[tuple[str, bool, list[Turn]]]:
    """Yield what is said, and whether by the client."""
    hello, flight, answer = turns[:3]
    begin, certificate, *_ = records(flight.data)
    own = next(records(answer.data))
    for label, data in _by_anybody(certificate):
        yield f"server: {label}", False, [hello, Turn(False, begin + data)]
        yield f"server, certificate shown: {label}", False, [hello, Turn(False, flight.data + data)]
        yield f"server, no hello: {label}", False, [hello, Turn(False, data)]
    padding = _records(_HANDSHAKE, _message(2, begin[9:-2] + len(_JUNK).to_bytes(2, "big") + _JUNK))
    yield "server: a padded hello", False, [hello, Turn(False, padding)]
    for label, data in _by_anybody(own):
        for what, said in (("a hello", begin), ("all of it", flight.data)):
            yield f"client after {what}: {label}", True, [hello, Turn(False, said), Turn(True, data)]


def _said(session: list[Packet], *, by_client: bool, before: int) -> int:
    """Return how many bytes an end has said in the packets before one."""
    ours = [each for each in session[: max(before, 0)] if each.haslayer(Raw) and (each[TCP].dport == PORT) is by_client]
    return sum(len(each[Raw].load) for each in ours)


@pytest.fixture(scope="module", name="figures")
def _figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bool, int, int]]:
    """Return by conversation whether the client speaks, what went through of what it said, and how much it said."""
    work = tmp_path_factory.mktemp("handshakes")
    topology = load_topology(_TOPOLOGY).topology
    assert topology is not None
    _, sessions = prepare(work / "cases", topology, work / "identities", NEWEST)
    packets: list[Packet] = []
    tried = {}
    for number, (label, by_client, said) in enumerate(_conversations(sessions.turns())):
        ends = Ends(CLIENT, SERVER, _FIRST_PORT + number, PORT)
        session = [*tcp_session(ends, said)][:-3]  # it does not end
        tried[label] = (by_client, frozenset((_FIRST_PORT + number, PORT)), len(packets), session)
        packets += session
    dropped = first_drops(packets, work / "cases" / CONFIGURATION, INTERFACE)
    return {
        label: (
            by_client,
            _said(session, by_client=by_client, before=dropped.get(ports, len(packets) + 1) - begin - 1),
            _said(session, by_client=by_client, before=len(session)),
        )
        for label, (by_client, ports, begin, session) in tried.items()
    }


def test_nobody_says_more_than_a_handshake_needs(figures: dict[str, tuple[bool, int, int]]) -> None:
    """Of 32 KiB and more, by server or client, at most 8,192 bytes go through before both certificates were judged."""
    assert len(figures) == 61
    assert all(said > 3 * EARLY_BYTES for _, _, said in figures.values())
    assert {label: passed for label, (_, passed, _) in figures.items() if passed > EARLY_BYTES} == {}
