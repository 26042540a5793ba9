"""Megabytes through engines and relays over lines that carry less than their ends' own: all of them arrive."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from scapy.layers.inet import TCP
from scapy.layers.inet6 import IPv6  # noqa: F401 - so that Ether knows it
from scapy.layers.l2 import Ether

from conformance.application.book import Exchange, exchanges
from conformance.application.tls import context
from conformance.lab import Lab
from conformance.lab.rooted import Root, compile_for
from conformance.pki import Identities, issue_identities
from conformance.probe.wire import check_losses, packet_socket, received
from netpolicy.intent.routing import Routing
from netpolicy.topology.model import Limits
from tests.lab.small import crowded_topology

_TOWN, _LINE = 1400, 1280
"""Bytes that the segments carry: the client's, and the line between the firewalls; the server's carries 1,500."""
_BULK = 2 << 20
_HEADERS = {4: 40, 6: 60}
_SYN = 0x02
Narrow = tuple[Lab, Identities]


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Narrow]:
    """Bring the small network up with both assurances, engines and relays."""
    root = Root.find()
    assert root is not None, "make setup"
    directory = tmp_path_factory.mktemp("narrow")
    topology = crowded_topology("narrow", Limits())
    mtus = {"town": _TOWN, "line": _LINE}
    segments = {name: replace(each, mtu=mtus.get(name, each.mtu)) for name, each in topology.segments.items()}
    topology = replace(topology, segments=segments)
    compile_for(root, topology, directory / "build")
    identities = issue_identities(topology, directory / "identities", now=datetime.now(UTC))
    with Lab(topology, directory / "build", root) as lab:
        lab.pin(identities.fingerprints([*topology.nodes.values(), *topology.firewalls.values()]))
        lab.start_relays(identities.directory)
        yield lab, identities


@pytest.mark.parametrize("flow", ["notice", "letter"])
@pytest.mark.parametrize("family", [4, 6])
def test_all_of_it_arrives(flow: str, family: int, narrow: Narrow) -> None:
    """Two megabytes each way, inspected or relayed; no handshake asks for more than the line carries, none is sent."""
    lab, _ = narrow
    exchange = next(
        each
        for each in exchanges(lab.topology, Routing(lab.topology))
        if (each.flow.id, each.address.version, each.source.id, each.destination.id) == (flow, family, "alpha", "gamma")
    )
    with lab.wire.call(packet_socket(lab.wire_port("core", "wan"))) as line:
        sent, heard = _transferred(narrow, exchange)
        seen = list(received(line))
        check_losses([line])
    assert heard == sent
    ours = [Ether(frame) for frame in seen if frame[12:14] == (b"\x08\0" if family == 4 else b"\x86\xdd")]
    segments = [each for each in ours if TCP in each]
    assert len(segments) > _BULK // _LINE
    assert max(len(each) for each in segments) <= _LINE + len(Ether())
    sizes = {dict(each[TCP].options)["MSS"] for each in segments if each[TCP].flags.value & _SYN}
    assert sizes == {_LINE - _HEADERS[family]}


def _transferred(narrow: Narrow, exchange: Exchange) -> tuple[list[str], list[str]]:
    """Return what each end has said, and what each has heard from the other one, by their hashes."""
    lab, identities = narrow
    begin = (exchange.prologue or "").encode()
    said = [(begin + os.urandom(_BULK))[:_BULK] for _ in range(2)]
    heard = [b"", b""]
    ends = (exchange.source, exchange.destination)
    theirs, ours = (
        context(identities.of(end), frozenset({exchange.flow.assurance}), exchange.alpn, server=end is ends[1])
        for end in ends
    )
    target = (str(exchange.address), exchange.port)
    kind = socket.AF_INET6 if exchange.address.version == 6 else socket.AF_INET
    with lab.namespace(ends[1].id).call(lambda: socket.create_server(target, family=kind)) as listening:
        listening.settimeout(20.0)

        def serve() -> None:
            plain, _ = listening.accept()
            plain.settimeout(20.0)
            with ours.wrap_socket(plain, server_side=True) as connection:
                heard[0] = _taken(connection)
                connection.sendall(said[1])
                connection.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        plain = lab.namespace(ends[0].id).call(lambda: socket.create_connection(target, timeout=20.0))
        with theirs.wrap_socket(plain, server_hostname=exchange.name) as connection:
            connection.sendall(said[0])
            heard[1] = _taken(connection)
        thread.join()
    return [hashlib.sha256(each).hexdigest() for each in said], [hashlib.sha256(each).hexdigest() for each in heard]


def _taken(connection: ssl.SSLSocket) -> bytes:
    found = bytearray()
    while len(found) < _BULK and (part := connection.recv(1 << 16)):
        found += part
    return bytes(found)
