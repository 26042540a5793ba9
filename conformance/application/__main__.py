"""``python -m conformance.application send DESTINATION``: the client, for ``netpolicy lab exec NODE -- …``."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from ipaddress import ip_address
from pathlib import Path

from conformance.application.book import PEERS, SEALING, Peer
from conformance.application.connection import Server, ask
from conformance.application.message import MessageError, RequestKind, kind_for, request_of
from conformance.application.tls import HANDSHAKE_SECONDS, PeerError, Terms
from conformance.pki.identities import Identity
from netpolicy.topology.model import Assurance


def main(argv: list[str] | None = None) -> int:
    """Send one request to a server and print its answer; 0 if there is one, 1 if not, 2 if the call is wrong."""
    parser = argparse.ArgumentParser(prog="python -m conformance.application", description=main.__doc__)
    commands = parser.add_subparsers(required=True)
    send = commands.add_parser("send", help="ask a server over mutual TLS")
    send.add_argument("destination", metavar="DESTINATION", help="a node or firewall")
    send.add_argument("--service", metavar="ID", help="where several flows lead to it")
    kinds = [kind.value for kind in RequestKind]
    send.add_argument("--message", metavar="KIND", choices=kinds, help=f"{', '.join(kinds)}; default: by the service")
    send.add_argument("--family", type=int, choices=(4, 6), default=4, help="IP version (default: %(default)s)")
    args = parser.parse_args(argv)
    directory = os.environ.get("NETPOLICY_IDENTITY")
    if directory is None:
        print("application: NETPOLICY_IDENTITY is not set: run this with 'netpolicy lab exec NODE --'", file=sys.stderr)
        return 2
    peer = _choose(Path(directory), args.destination, args.service, args.family)
    if peer is None:
        return 2
    request = request_of(RequestKind(args.message or kind_for(peer.service)), peer.affair)
    target = f"{peer.destination} [{peer.address}]:{peer.port}"
    try:
        plain = socket.create_connection((peer.address, peer.port), timeout=HANDSHAKE_SECONDS)
        sealing = (Path(directory) / f"{peer.destination}{SEALING}").read_bytes() if peer.sealed else None
        reply = ask(
            plain,
            Identity(Path(directory)),
            request,
            server=Server(peer.uri, peer.name, sealing, peer.server_uri),
            terms=Terms(Assurance(peer.assurance), peer.alpn, peer.service, peer.affair),
        )
    except (OSError, PeerError, MessageError) as failed:
        print(f"application: {target} ({peer.flow}): {failed}", file=sys.stderr)
        return 1
    sealed = ", sealed for the server" if peer.sealed else ""
    print(f"{peer.flow}: {request.kind} to {target} over mutual TLS ({peer.alpn}){sealed}")
    print(f"  sent      {request.model_dump_json()}")
    print(f"  answered  {reply.answer.model_dump_json()}")
    return 0


def _choose(directory: Path, destination: str, service: str | None, family: int) -> Peer | None:
    path = directory / PEERS
    known = [Peer(**each) for each in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []
    for peer in known:
        wanted = peer.destination == destination and service in {None, peer.service}
        if wanted and ip_address(peer.address).version == family:
            return peer
    reachable = sorted({f"{peer.destination} ({peer.service})" for peer in known})
    print(
        f"application: no flow leads from here to '{destination}'" + (f" with service '{service}'" if service else ""),
        f"it may ask: {', '.join(reachable) or 'nobody'}",
        sep="; ",
        file=sys.stderr,
    )
    return None


if __name__ == "__main__":
    sys.exit(main())
