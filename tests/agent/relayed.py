"""A client and a next relay, for a relay between them."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from appliance_image.agent.namespaces import call_in
from conformance.pki import Identities
from netpolicy.topology.ends import End
from tests.agent.making import GAMMA, PORT
from tests.agent.world import World


def context_of(identities: Identities, end: End, *, server: bool) -> ssl.SSLContext:
    """Return the settings of an end with its own certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    own = identities.of(end)
    context.load_cert_chain(own.chain, own.key)
    context.load_verify_locations(own.trust)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["app/1"])
    return context


@contextmanager
def answering(world: World, identities: Identities) -> Iterator[None]:
    """Be the next relay, and answer whatever comes."""
    context = context_of(identities, identities.topology.firewalls["core"], server=True)
    listening = call_in(world.namespace("far"), lambda: socket.create_server((GAMMA, PORT), backlog=8))

    def attend(plain: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(plain, server_side=True) as secured:
            while said := secured.recv(100):
                secured.sendall(said)

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=attend, args=(listening.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
