"""The way from the half that speaks with the network to the privileged one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance_image.management import protocol
from appliance_image.management.errors import LinkError, RefusedError
from appliance_image.management.protocol import Document
from appliance_image.management.transport import Lines, Plain

_SECONDS = 30.0
"""In which the other half takes what it is sent, and answers what is asked on this half's own account."""


class Link:
    """One request to the privileged half."""

    def __init__(self, connection: socket.socket) -> None:
        self._plain = Plain(connection, _SECONDS)
        self._lines = Lines(self._plain, protocol.MOST_REPLY)

    def send(self, data: bytes) -> None:
        """Send a line or a part of an upload.

        Raises:
            LinkError: The other half does not take it.

        """
        self._plain.within(_SECONDS)
        self._plain.send(data)

    def reply(self, seconds: float = _SECONDS) -> Document:
        """Return the next line of the answer.

        Raises:
            SlowError: It has not come within so many seconds, and may still come.
            LinkError: The other half has ended.
            RefusedError: What it says is nothing that it should say.

        """
        self._plain.within(seconds)
        line = self._lines.line()
        if line is None:
            raise LinkError("the privileged half has ended")
        document = protocol.decode(line)
        protocol.reply(document)
        return document


@contextmanager
def linked(path: Path) -> Iterator[Link]:
    """Yield a connection to the privileged half.

    Raises:
        LinkError: It is not there.

    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_SECONDS)
        try:
            connection.connect(str(path))
        except OSError as failed:
            raise LinkError(f"the privileged half does not answer: {failed}") from None
        yield Link(connection)


def ask(path: Path, document: Document) -> Document:
    """Return the answer to a question of this half's own.

    Raises:
        LinkError, RefusedError: There is none.

    """
    with linked(path) as link:
        link.send(protocol.encode(document))
        kind, said = protocol.reply(link.reply())
    if kind == "refused":
        raise protocol.refused(said)
    if kind != "answer":
        raise RefusedError("malformed", "the privileged half says something else")
    found: Document = said
    return found
