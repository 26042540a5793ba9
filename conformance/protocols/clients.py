"""Real clients of the forbidden protocols, run inside a namespace by whoever calls them there."""

from __future__ import annotations

import asyncio
import ftplib
import http.client
import smtplib
from collections.abc import Callable

import telnetlib3

from conformance.protocols.catalogue import GREETING, Protocol
from netpolicy.topology.model import Address

Client = Callable[[Address, int, float], str]
"""Reaches an address and port, waiting so many seconds for each answer; tells what it achieved.

It raises OSError, EOFError or ClientError when it does not: TimeoutError, an OSError, if nothing answered.
"""


class ClientError(Exception):
    """The server was reached and did not do its part."""


def smtp(address: Address, port: int, timeout: float) -> str:
    """Send a mail."""
    with smtplib.SMTP(str(address), port, local_hostname="lab", timeout=timeout) as client:
        client.sendmail("sender@lab.invalid", ["receiver@lab.invalid"], "Subject: lab\r\n\r\nlab\r\n")
    return "a mail was taken"


def http_(address: Address, port: int, timeout: float) -> str:
    """Fetch a page."""
    client = http.client.HTTPConnection(str(address), port, timeout=timeout)
    try:
        client.request("GET", "/")
        answer = client.getresponse()
        body = answer.read()
    finally:
        client.close()
    if answer.status != 200 or body != GREETING.encode():
        raise ClientError(f"status {answer.status}")
    return "a page was fetched"


def ftp(address: Address, port: int, timeout: float) -> str:
    """Log in and list a directory over a passive data connection (RFC 959, RFC 2428)."""
    with ftplib.FTP(timeout=timeout) as client:  # noqa: S321 - it is what must not pass
        client.connect(str(address), port)
        client.login()
        client.retrlines("LIST", lambda _line: None)
    return "a directory was listed"


def telnet(address: Address, port: int, timeout: float) -> str:
    """Log in and read the greeting (RFC 854)."""
    return asyncio.run(_telnet(address, port, timeout))


async def _telnet(address: Address, port: int, patience: float) -> str:
    opening = telnetlib3.open_connection(str(address), port, connect_minwait=0.0, connect_maxwait=0.2)
    reader, writer = await asyncio.wait_for(opening, patience)
    try:
        line = await asyncio.wait_for(reader.readline(), patience)
    finally:
        writer.close()
    if GREETING not in line:
        raise ClientError(f"it said {line!r}")
    return "a session was opened"


CLIENTS: dict[Protocol, Client] = {
    Protocol.SMTP: smtp,
    Protocol.HTTP: http_,
    Protocol.FTP: ftp,
    Protocol.TELNET: telnet,
}
