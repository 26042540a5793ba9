"""Ports that connections through engines come from."""

from __future__ import annotations

import errno
import socket
from itertools import count, islice

from conformance.lab import Namespace
from netpolicy.topology.model import Address

_FIRST, _SPAN = 32768, 28232
"""What Linux takes for itself by default (ip_local_port_range)."""
_numbers = count()


def bound(namespace: Namespace, source: Address) -> socket.socket:
    """Return a TCP socket on a port that none had before, in turn, until all were taken.

    An engine that has dropped a connection goes on to drop all between the same two ends until it forgets them. Were
    ports chosen at random, as the kernel does it, a connection would now and then not come to be.

    Raises:
        OSError: The source is not this namespace's, or all ports are taken.

    """
    made = namespace.call(
        lambda: socket.socket(socket.AF_INET if source.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    )
    for number in islice(_numbers, _SPAN):
        try:
            made.bind((str(source), _FIRST + number % _SPAN))
        except OSError as failed:
            if failed.errno != errno.EADDRINUSE:
                made.close()
                raise
        else:
            return made
    made.close()
    raise OSError(errno.EADDRINUSE, f"no port of {source} is free")


def connection(namespace: Namespace, source: Address, target: tuple[str, int], seconds: float) -> socket.socket:
    """Return a connection from such a socket; it keeps the limit of time.

    Raises:
        OSError: It does not come to be.

    """
    made = bound(namespace, source)
    try:
        made.settimeout(seconds)
        made.connect(target)
    except OSError:
        made.close()
        raise
    return made
