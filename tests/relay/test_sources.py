"""What the relay leaves to its other clients while one of them takes all that it can get."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conformance.lab import Lab
from conformance.lab.rooted import Root
from conformance.pki import issue_identities
from netpolicy.build import compile_topology
from netpolicy.topology.model import Limits
from tests.lab.small import PORT, crowded_topology
from tests.waiting import until

_EACH = 3
"""Connections that each address may have: the four of alpha and beta share twelve."""
_HELD_SECONDS, _REFUSED_SECONDS = 0.5, 2.0
"""Together less than a relay waits for a handshake; a busy machine's relay refuses late."""


@pytest.fixture(name="lab", scope="module")
def _lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Bring relays up behind kernels that count no connections: what is refused, the relay has refused."""
    root = Root.find()
    assert root is not None, "make setup"
    directory = tmp_path_factory.mktemp("sources")
    topology = crowded_topology("sources", Limits(connections=4 * _EACH))
    compile_topology(topology, directory / "build")
    for firewall in topology.firewalls:
        path = directory / "build" / firewall / "nftables.nft"
        text, count = re.subn(r"ct count( over)? \d+", r"ct count\1 60000", path.read_text(encoding="utf-8"))
        assert count
        path.write_text(text, encoding="utf-8")
    identities = issue_identities(topology, directory / "identities", now=datetime.now(UTC))
    with Lab(topology, directory / "build", root, inline=False) as lab:
        lab.start_relays(identities.directory)
        yield lab


def _held(lab: Lab, node: str, target: str, count: int, open_: ExitStack) -> int:
    """Open connections to the relay and say nothing; return how many of them it has not ended."""

    def connect() -> socket.socket | None:
        try:
            return socket.create_connection((target, PORT + 1), timeout=5.0)
        except ConnectionResetError:  # it has ended before the kernel told of its beginning
            return None

    made = [lab.namespace(node).call(connect) for _ in range(count)]
    found = [open_.enter_context(each) for each in made if each is not None]
    until(lambda: sum(not _ended(each) for each in found) <= _EACH, _REFUSED_SECONDS)
    time.sleep(_HELD_SECONDS)
    return sum(not _ended(each) for each in found)


def _ended(made: socket.socket) -> bool:
    made.setblocking(False)
    try:
        return made.recv(1) == b""
    except ConnectionResetError:
        return True
    except BlockingIOError:
        return False


def test_each_source_has_its_share_of_a_relay(lab: Lab) -> None:
    """One address gets its three and no fourth; its neighbour, and its own other address, get theirs."""
    with ExitStack() as open_:
        assert _held(lab, "alpha", "10.77.3.10", _EACH + 2, open_) == _EACH
        assert _held(lab, "beta", "10.77.3.10", 1, open_) == 1
        assert _held(lab, "alpha", "fd77:0:0:3::a", 1, open_) == 1


def test_the_share_is_the_table_s(lab: Lab) -> None:
    """Without the lines that count sources, the same relay holds them all for one."""
    relay = lab.relays["edge"]
    path: Path = relay.files / "haproxy.cfg"
    before = path.read_text(encoding="utf-8")
    without, count = re.subn(r"^    (stick-table|tcp-request connection) .*\n", "", before, flags=re.MULTILINE)
    assert count == 3
    path.write_text(without, encoding="utf-8")
    relay.reload()
    try:
        with ExitStack() as open_:
            assert _held(lab, "alpha", "10.77.3.10", _EACH + 2, open_) == _EACH + 2
    finally:
        path.write_text(before, encoding="utf-8")
        relay.reload()
