"""Which protocols the lab speaks, and where their servers listen."""

from __future__ import annotations

import enum
import logging
import threading
from collections import Counter

from netpolicy.topology.model import Address


class Protocol(enum.StrEnum):
    """What must never pass (住基ネット: 電子メール, WWW, ファイル転送, 遠隔操作)."""

    SMTP = "SMTP"
    HTTP = "HTTP"
    FTP = "FTP"
    TELNET = "Telnet"


# It warns of every negotiation that is not finished; what comes of a session is judged elsewhere.
logging.getLogger("telnetlib3").setLevel(logging.CRITICAL)

GREETING = "lab"
"""What every server says."""
STANDARD = {Protocol.SMTP: 25, Protocol.HTTP: 80, Protocol.FTP: 21, Protocol.TELNET: 23}
UNUSUAL = {Protocol.SMTP: 42025, Protocol.HTTP: 42080, Protocol.FTP: 42021, Protocol.TELNET: 42023}
"""A protocol must not pass on any port (J-2)."""


_PATIENCE = 2.0


class Traffic:
    """How many connections each server has accepted; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._accepted: Counter[tuple[Address, int]] = Counter()

    def accept(self, address: Address, port: int) -> None:
        """Count a connection."""
        with self._lock:
            self._accepted[address, port] += 1
            self._lock.notify_all()

    def wait_beyond(self, address: Address, port: int, count: int) -> bool:
        """Tell whether a server has accepted more than `count` connections, or does so in a moment.

        A server that is a program of its own tells of a connection a little after its client is done.
        """
        with self._lock:
            return self._lock.wait_for(lambda: self._accepted[address, port] > count, _PATIENCE)

    def accepted(self, address: Address, port: int) -> int:
        """Return the connections that a server has accepted so far."""
        with self._lock:
            return self._accepted[address, port]
