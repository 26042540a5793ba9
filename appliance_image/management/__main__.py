"""``python3 -I -m appliance_image.management``: the two halves of an appliance's management, as services."""

from __future__ import annotations

import argparse
import os
import pwd
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

SOCKET = Path("/run/netpolicy/management.sock")
USER = "netpolicy"
_FIRST = 3
"""The descriptor that the service manager hands over (sd_listen_fds(3))."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of both halves."""
    result = argparse.ArgumentParser(prog="netpolicy-management", description="The management of an appliance.")
    halves = result.add_subparsers(metavar="HALF", required=True)
    serve = halves.add_parser("serve", help="speak with operators; as a user without rights")
    serve.add_argument("--identity", metavar="DIR", type=Path, help="default: $CREDENTIALS_DIRECTORY")
    serve.add_argument("--socket", metavar="PATH", type=Path, default=SOCKET)
    serve.set_defaults(run=_serve)
    operate = halves.add_parser("operate", help="do what they ask for; as root, on a socket of the service manager")
    operate.set_defaults(run=_operate)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run one half."""
    args = parser().parse_args(argv)
    code: int = args.run(args)
    return code


def _serve(args: argparse.Namespace) -> int:
    from appliance_image.management.server import Server  # noqa: PLC0415 - each half loads what it needs
    from appliance_image.management.tls import Files  # noqa: PLC0415

    Server(Files(args.identity or Path(os.environ["CREDENTIALS_DIRECTORY"])), args.socket).serve()
    return 0


def _operate(_args: argparse.Namespace) -> int:
    from appliance_image.agent.root import Root  # noqa: PLC0415 - the same
    from appliance_image.management.operations import Agent  # noqa: PLC0415
    from appliance_image.management.privileged import Privileged  # noqa: PLC0415

    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        print("netpolicy-management: started without a socket of the service manager", file=sys.stderr)
        return 2
    root = Root()
    root.run.mkdir(parents=True, exist_ok=True)
    # What a power cut or a kill has left of an upload: it would fill the partition.
    for left in (*root.run.glob("upload-*"), *root.state.glob("upload-*")):
        left.unlink(missing_ok=True)
    with socket.socket(fileno=_FIRST) as listening:
        Privileged(Agent(root), root.run).serve(listening, frozenset({0, pwd.getpwnam(USER).pw_uid}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
