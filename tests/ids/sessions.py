"""TLS sessions of a permitted flow, real ones, each of which is wrong in one way."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from scapy.packet import Packet

from conformance.pki.identities import Identity
from ids_rules.oddities import MOST_BYTES
from ids_rules.tls_policy import EARLY_BYTES, EARLY_SEGMENTS, HELLO_BYTES
from tests.ids.conversations import CLIENT, SERVER
from tests.ids.records import records, split_records, without_certificate
from tests.ids.transcript import Ends, Side, Turn, converse, tcp_session

MUCH = 2 * 1024 * 1024
"""Bytes, more than an engine would look at if it were not told otherwise."""
SUITES = {"ECDHE+AESGCM": 24, "ECDHE+CHACHA20": 16}
"""Of permitted sessions, by what encryption adds to a record (RFC 5288, RFC 7905)."""
PORT, ALPN, NAME = 17013, "juki-update/1", "tachikawa-cs.jukinet.internal"
ENDS = Ends(CLIENT, SERVER, 50001, PORT)


class Sessions:
    """Makes captures with the certificates of the two ends, and of somebody else."""

    def __init__(self, client: Identity, server: Identity, other: Identity) -> None:
        self._client, self._server = client, server
        self.other = other
        """Whose certificate is pinned for neither end."""

    def cases(self) -> dict[str, Callable[[], Iterator[Packet]]]:
        """Return packets by the kind of signature that they raise; "" for those that must raise none."""
        tls12, tls13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
        return {
            "": self._session,
            "tls-client-certificate": lambda: self._session(nobody=True),
            "tls-server-certificate": lambda: self._session(server=self.other),
            "tls-version": lambda: self._session(version=tls13),
            "tls-cipher-suite": lambda: self._session(version=tls12, suites="ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"),
            "tls-name": lambda: self._session(name="www.example.internal"),
            "tls-alpn": lambda: self._session(alpn="http/1.1"),
            "tls-first-bytes": lambda: _plain(Turn(True, b"\x80" + bytes(200))),
            "tls-client-hello": lambda: _plain(Turn(True, b"\x16\x03\x01\x02\x00\x02" + bytes(200))),
            "tls-client-hello-length": self._unanswered,
            "tls-client-goes-on": lambda: packets([Turn(True, self.turns()[0].data + b"GET / HTTP/1.1\r\n")]),
            "tls-early-segments": lambda: self._hello_again(EARLY_SEGMENTS, acknowledged=False),
            "tls-early-length": self._endless,
            "tls-early-again": lambda: self._hello_again(1, acknowledged=True),
            "tls-server-first": lambda: _plain(Turn(False, b"\x80 who are you?\r\n")),
            "tls-other-protocol-client": lambda: _plain(Turn(True, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")),
            "tls-other-protocol-server": lambda: _plain(Turn(False, b"SSH-2.0-a\r\n"), Turn(True, b"SSH-2.0-b\r\n")),
            "tls-renegotiation-hello": lambda: self._session(again=[second_hello(24)]),
            "tls-renegotiation": lambda: self._session(
                says=bytes(MUCH), answers=bytes(MUCH), again=[second_keys(24)], segment_size=7000
            ),
            "size-toserver": lambda: self._session(says=bytes(MOST_BYTES + 65536)),
            "size-toclient": lambda: self._session(answers=bytes(MOST_BYTES + 65536)),
        }

    def permitted(self, suites: str, again: Sequence[Turn], cuts: Sequence[int], segment_size: int) -> Iterator[Packet]:
        """Return a good session that goes on with `again`."""
        return packets([*self.turns(suites=suites), *again], cuts=cuts, segment_size=segment_size)

    def in_seven(self) -> dict[str, Callable[[], Iterator[Packet]]]:
        """Return packets by the kinds that have another meaning, or stand alone, in the form for Suricata 7."""
        return {
            "tls-client-certificate": lambda: self._session(client=self.other),
            "tls-client-no-certificate": lambda: self._session(nobody=True),
            "tls-server-no-certificate": lambda: packets(without_certificate(self.turns())),
            "tls-client-hello-split": lambda: packets(split_records(self.turns(), 1, [64])),
            "tls-no-name": lambda: self._session(name=None),
        }

    def _hello_again(self, times: int, *, acknowledged: bool) -> Iterator[Packet]:
        """Return a good hello that is sent again, without an answer."""
        begun = list(packets(self.turns()[:1]))[:5]
        yield from begun if acknowledged else begun[:4]
        yield from begun[3:4] * times

    def _unanswered(self) -> Iterator[Packet]:
        """Return a good hello, and more behind it than a client may say before it is answered."""
        hello = self.turns()[0]
        return packets([Turn(True, hello.data + _certificate_like(HELLO_BYTES))])

    def _endless(self) -> Iterator[Packet]:
        """Return a good hello, and a ServerHello that does not end."""
        hello, flight = self.turns()[:2]
        endless = bytes((2, 0xFF, 0xFF, 0xFF)) + next(records(flight.data))[9:] + bytes(2 * EARLY_BYTES)
        length = len(endless).to_bytes(2, "big")
        return packets([hello, Turn(False, b"\x16\x03\x03" + length + endless)], segment_size=1400)

    def _session(self, *, again: Sequence[Turn] = (), segment_size: int = 60000, **how: Any) -> Iterator[Packet]:
        return packets([*self.turns(**how), *again], segment_size=segment_size)

    def turns(
        self,
        *,
        nobody: bool = False,
        client: Identity | None = None,
        server: Identity | None = None,
        version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
        suites: str = "ECDHE+AESGCM",
        name: str | None = NAME,
        alpn: str = ALPN,
        more: Sequence[str] = (),
        says: bytes = b"question",
        answers: bytes = b"answer",
    ) -> list[Turn]:
        """Return what both ends say in a session, in which the client may offer more protocols."""
        ours = _context(ssl.PROTOCOL_TLS_CLIENT, None if nobody else client or self._client, version, suites)
        ours.check_hostname = False
        ours.verify_mode = ssl.CERT_NONE
        ours.set_alpn_protocols([alpn, *more])
        theirs = _context(ssl.PROTOCOL_TLS_SERVER, server or self._server, version, suites)
        theirs.load_verify_locations(self._server.trust)
        theirs.verify_mode = ssl.CERT_OPTIONAL
        return converse(Side(ours, False, name, [says]), Side(theirs, True, None, [answers]))


def packets(
    turns: Iterable[Turn], *, cuts: Sequence[int] = (), segment_size: int = 60000, ends: Ends = ENDS
) -> Iterator[Packet]:
    """Return the packets of a session, large ones where not cut."""
    return tcp_session(ends, turns, cuts=cuts, segment_size=segment_size)


def second_hello(added: int) -> Turn:
    """Return the first record of a second handshake, in which nothing can be read."""
    return Turn(True, b"\x16\x03\x03" + (184 + added).to_bytes(2, "big") + b"\x6a" * (184 + added))


def second_keys(added: int, *, from_client: bool = True) -> Turn:
    """Return the ChangeCipherSpec of a second handshake."""
    return Turn(from_client, b"\x14\x03\x03" + (1 + added).to_bytes(2, "big") + b"\x01" * (1 + added))


def _certificate_like(length: int) -> bytes:
    """Return the first record after a hello that could be a Certificate of `length` bytes (RFC 5246, 7.4.2)."""
    message = b"\x0b" + b"".join((length - part).to_bytes(3, "big") for part in (4, 7, 10)) + bytes(length - 10)
    return b"\x16\x03\x03" + length.to_bytes(2, "big") + message


def _plain(*turns: Turn) -> Iterator[Packet]:
    return tcp_session(ENDS, turns)


def _context(side: int, identity: Identity | None, version: ssl.TLSVersion, suites: str) -> ssl.SSLContext:
    found = ssl.SSLContext(side)
    found.set_ciphers(suites)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found.minimum_version = found.maximum_version = version
    if identity is not None:
        found.load_cert_chain(identity.chain, identity.key)
    return found
