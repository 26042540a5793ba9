"""Lists that are over let no operator in, and no console trusts a firewall by them."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from appliance_image.management.tls import Files
from conformance.pki import Identities, issue_identities
from tests.lab.small import small_topology


def _let_in(server: Files, client: Files, identities: Identities) -> bool:
    """Tell whether a handshake of both ends with each other's certificates comes to its end."""
    ours, theirs = socket.socketpair()
    outcome: list[bool] = []

    def serve() -> None:
        with suppress(OSError), server.context(server=True).wrap_socket(ours, server_side=True) as secured:
            outcome.append(secured.recv(1) == b"x")
            secured.sendall(b"y")

    thread = threading.Thread(target=serve)
    thread.start()
    name = f"edge.{identities.topology.id}.internal"
    with suppress(OSError), theirs, client.context(server=False).wrap_socket(theirs, server_hostname=name) as secured:
        secured.sendall(b"x")
        outcome.append(secured.recv(1) == b"y")
    thread.join(10)
    ours.close()
    return outcome == [True, True]


@pytest.mark.parametrize("whose", ["edge", "alpha"])
def test_lists_that_are_over(whose: str, tmp_path: Path) -> None:
    """Whichever end has them, it refuses the other, whom it took with lists whose time is not over."""
    identities = issue_identities(small_topology(), tmp_path / "identities", now=datetime.now(UTC))
    ends = {name: Files(identities.directory / name) for name in ("edge", "alpha")}
    assert _let_in(ends["edge"], ends["alpha"], identities)
    lists = b""
    for each in (identities.root, *identities.issuers.values()):
        each._crl_time = None
        lists += each.crl(datetime.now(UTC), life=timedelta(seconds=-1)).public_bytes(Encoding.PEM)
    (ends[whose].directory / "crl.pem").write_bytes(lists)
    assert not _let_in(ends["edge"], ends["alpha"], identities)
