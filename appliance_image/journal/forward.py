"""Sending a journal to the collector of the managing site: every record, in order, until it says that it has it.

Syslog has no acknowledgements, and a record that TCP took may be lost all the same. The collector therefore begins with
``HEAD SEQ:HASH`` (``HEAD 0`` if it has nothing), the newest record that it has, and answers each message with
``ACK SEQ`` once that is on its disk, or with ``NAK TEXT`` and the end.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from appliance_image.journal.channel import Credentials, Stream
from appliance_image.journal.errors import JournalError
from appliance_image.journal.read import records
from appliance_image.journal.slot import Head, read_slot, write_slot
from appliance_image.journal.syslog import frame, message

POSITION = "forwarded"
"""The newest record that the collector said it has."""
_WINDOW = 32
"""Messages that wait for an answer at a time."""
_PATIENCE = 30.0
"""Seconds without an answer."""
_LONGEST_ANSWER = 1024


class DivergedError(JournalError):
    """The collector does not have, or does not take, what this journal says: somebody has to look at both."""


@dataclass(frozen=True, slots=True)
class Collector:
    """Where to send to."""

    host: str
    port: int
    name: str
    """The name that its certificate must have."""
    credentials: Credentials


class Sender:
    """One connection to the collector."""

    def __init__(self, directory: Path, stream: Stream, host: str) -> None:
        self._directory = directory
        self._stream = stream
        self._host = host
        self.position = self._greeting()

    def send(self) -> int:
        """Send what the collector does not have; return how many records it has taken.

        Raises:
            DivergedError: It refuses a record.
            JournalError: The journal is damaged.
            OSError: The connection has failed.

        """
        count = 0
        waiting = records(self._directory, self.position + 1)
        while batch := list(islice(waiting, _WINDOW)):
            for record in batch:
                self._stream.write(frame(message(record, self._host)))
            self._stream.flush()
            for record in batch:
                if (answer := self._answer()) != f"ACK {record.seq}":
                    raise DivergedError(f"the collector answers record {record.seq} with '{answer}'")
                self.position = record.seq
                count += 1
            with suppress(OSError):  # the collector knows it as well
                write_slot(self._directory / POSITION, Head(batch[-1].seq, batch[-1].hash))
        return count

    def _greeting(self) -> int:
        """Hold what the collector has against the journal; return its sequence number."""
        answer = self._answer()
        if answer == "HEAD 0":
            return 0
        try:
            head = Head.parse(answer.removeprefix("HEAD "))
        except ValueError:
            raise DivergedError(f"the collector begins with '{answer}'") from None
        for record in records(self._directory, head.seq):
            if record.seq == head.seq and record.hash == head.hash:
                return head.seq
            # What the collector has may be gone here, as long as the rest follows it.
            if record.seq == head.seq + 1 and record.previous == head.hash:
                return head.seq
            break
        raise DivergedError(f"the collector has record {head}, which is not in {self._directory}")

    def _answer(self) -> str:
        line = self._stream.readline(_LONGEST_ANSWER)
        if not line.endswith(b"\n"):
            raise ConnectionResetError("the collector has ended the connection")
        text = line.decode("utf-8", "replace").strip()
        if text.startswith("NAK "):
            raise DivergedError(f"the collector refuses: {text.removeprefix('NAK ')}")
        return text


@contextmanager
def connected(directory: Path, collector: Collector, host: str) -> Iterator[Sender]:
    """Connect to the collector for as long as the block runs.

    Args:
        directory: The journal.
        collector: Whom to connect to.
        host: The name of this host in the messages.

    Raises:
        DivergedError: The collector has records that this journal has not.
        OSError: It cannot be reached, or its certificate is not what it must be (ssl.SSLError).

    """
    context = collector.credentials.client()
    with (
        socket.create_connection((collector.host, collector.port), timeout=_PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname=collector.name) as secured,
        secured.makefile("rwb") as stream,
    ):
        sender = Sender(directory, stream, host)
        yield sender
        with suppress(OSError, ssl.SSLError):
            secured.unwrap()  # all is acknowledged: how the connection ends does not matter


def forwarded(directory: Path) -> Head | None:
    """Return the newest record that a collector said it has, as far as this host noted it."""
    try:
        return read_slot(directory / POSITION)
    except ValueError:
        return None
