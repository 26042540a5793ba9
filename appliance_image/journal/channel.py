"""TLS between a journal and its collector: both show certificates (RFC 5425, 4.2 and 5)."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from appliance_image.journal.errors import JournalError

_CLIENT = re.compile(r"[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?")


class Stream(Protocol):
    """What is used of a connection's file."""

    def read(self, size: int, /) -> bytes:
        """Return so many octets, fewer at the end."""

    def readline(self, size: int, /) -> bytes:
        """Return octets up to a newline, or so many."""

    def write(self, octets: bytes, /) -> int:
        """Take octets."""

    def flush(self) -> None:
        """Send what was taken."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files in PEM."""

    certificate: Path
    """With the authorities between it and the root, if any."""
    key: Path
    authorities: Path
    """Who may have certified the other end."""
    lists: Path
    """The revocation lists of all of them; one that is missing or over lets nobody in."""

    def state(self) -> tuple[int, int, int]:
        """Return what differs when other lists have come.

        Raises:
            OSError: There are none.

        """
        found = self.lists.stat()
        return found.st_ino, found.st_mtime_ns, found.st_size

    def client(self) -> ssl.SSLContext:
        """Return the settings of the end that connects."""
        return self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def server(self) -> ssl.SSLContext:
        """Return the settings of the end that is connected to."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        return self._load(context)

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A session that is resumed would outlive the revocation of its certificate.
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_CRL_CHECK_CHAIN
        if context.protocol is ssl.PROTOCOL_TLS_SERVER:
            context.num_tickets = 0
        try:
            context.load_cert_chain(self.certificate, self.key)
            context.load_verify_locations(self.authorities)
            context.load_verify_locations(self.lists)
        except (ssl.SSLError, OSError) as failed:
            raise JournalError(f"{self.certificate}, {self.key}, {self.authorities}, {self.lists}: {failed}") from None
        return context


def client_name(connection: ssl.SSLSocket) -> str:
    """Return the DNS name that a client's certificate gives it.

    Raises:
        JournalError: It gives none, or several.

    """
    certificate = connection.getpeercert() or {}
    names = [str(entry[1]) for entry in certificate.get("subjectAltName", ()) if entry[0] == "DNS"]
    if len(names) != 1 or not _CLIENT.fullmatch(names[0]) or ".." in names[0]:
        raise JournalError(f"the client's certificate has not one name: {names}")
    return names[0]


def address(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT`` or ``[IPv6]:PORT``.

    Raises:
        ValueError: It is not so written.

    """
    host, colon, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not host or not port.isdecimal() or not 0 <= int(port) < 1 << 16:
        raise ValueError(f"'{text}' is not HOST:PORT")
    return host, int(port)
