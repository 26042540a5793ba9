"""The four protocols that no network may let pass, whatever its author writes, and how each gives itself away.

They have entries in every :class:`~netpolicy.topology.model.Topology`, so that rules, counters, signatures,
expectations and proofs are the same for a network without a section ``forbidden`` as for one that lists them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from netpolicy.topology.model import ForbiddenProtocol, PortRange, Title


@dataclass(frozen=True, slots=True)
class Always:
    """A protocol that is forbidden in every network."""

    protocol: ForbiddenProtocol
    """With the TCP ports of IANA's registry of service names and port numbers: in clear and inside TLS."""
    names: frozenset[str]
    """How its ALPN names begin (IANA's TLS ALPN Protocol IDs, and what is in use beside them), in lower case."""
    begins: tuple[str, ...]
    """The words with which one of its sides may begin to speak."""


def _always(title: str, ports: tuple[PortRange, ...], names: str, begins: str) -> Always:
    return Always(
        ForbiddenProtocol(title.lower(), Title(title), ports, ()), frozenset(names.split()), tuple(begins.split())
    )


def _ports(*ports: int) -> tuple[PortRange, ...]:
    return tuple(PortRange(port, port) for port in ports)


ALWAYS: Mapping[str, Always] = {
    each.protocol.id: each
    for each in (
        _always(
            "SMTP",
            # smtp, submissions, submission.
            _ports(25, 465, 587),
            # Who fetches mail speaks of it as well.
            "smtp smtps submission submissions lmtp imap imaps pop pop3 pop3s managesieve jmap",
            # Commands of RFC 821, 1985, 2033, 2645, 3030, 3207, 4954 and 5321, and of POP3 (RFC 1939, 2449, 2595).
            "HELO EHLO LHLO MAIL RCPT DATA BDAT RSET VRFY EXPN HELP NOOP QUIT TURN ETRN ATRN SEND SOML SAML STARTTLS "
            "AUTH CAPA STLS APOP",
        ),
        _always(
            "HTTP",
            # http, http-alt.  Not 443 (https): any protocol over TLS may stand there; its name and bytes tell which.
            _ports(80, 591, 8008, 8080),
            "http https h1 h2 h2c h3 hq spdy grpc ws wss websocket",
            # IANA's HTTP Method Registry (PRI begins HTTP/2's preface, RFC 9113), and how an answer begins.
            "ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE GET HEAD LABEL LINK LOCK MERGE MKACTIVITY "
            "MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST PRI PROPFIND PROPPATCH PUT "
            "QUERY REBIND REPORT SEARCH TRACE UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF "
            "VERSION-CONTROL HTTP/",
        ),
        _always(
            "FTP",
            # ftp-data, ftp, ftps-data, ftps.
            (PortRange(20, 21), PortRange(989, 990)),
            "ftp ftps tftp",
            # IANA's FTP Commands and Extensions.
            "ABOR ACCT ADAT ALGS ALLO APPE AUTH CCC CDUP CONF CWD DELE ENC EPRT EPSV FEAT HELP HOST LANG LIST LPRT "
            "LPSV MDTM MIC MKD MLSD MLST MODE NLST NOOP OPTS PASS PASV PBSZ PORT PROT PWD QUIT REIN REST RETR RMD RNFR "
            "RNTO SITE SIZE SMNT STAT STOR STOU STRU SYST TYPE USER XCUP XCWD XMKD XPWD XRMD",
        ),
        _always("Telnet", _ports(23, 992), "telnet telnets rlogin", "login"),
    )
}
"""By id; their entries stand before those of the topology."""

_REPLY = re.compile(r"[1-5](?:[0-9](?:[0-9](?:[^0-9A-Za-z].*)?)?)?\Z")
"""The code that an answer of SMTP or FTP begins with (RFC 5321, 4.2; RFC 959, 4.2), or the beginning of one."""
_PART = re.compile(r"[^a-z0-9]")


def with_always(protocols: Mapping[str, ForbiddenProtocol]) -> dict[str, ForbiddenProtocol]:
    """Return the protocols of a file and those that are always forbidden.

    An entry of the same name adds its ports to those that are there already, and may give another title.
    """
    found: dict[str, ForbiddenProtocol] = {}
    for name, always in ALWAYS.items():
        own = protocols.get(name)
        builtin = always.protocol
        found[name] = builtin if own is None else replace(own, tcp=joined((*builtin.tcp, *own.tcp)))
    return found | {name: each for name, each in protocols.items() if name not in ALWAYS}


def joined(ports: tuple[PortRange, ...]) -> tuple[PortRange, ...]:
    """Return ranges sorted, and joined where they overlap or are adjacent."""
    found: list[PortRange] = []
    for each in sorted(ports):
        if found and found[-1].last + 1 >= each.first:
            found[-1] = PortRange(found[-1].first, max(found[-1].last, each.last))
        else:
            found.append(each)
    return tuple(found)


def named(alpn: str) -> ForbiddenProtocol | None:
    """Return the protocol that an ALPN name means: ``http/1.1``, ``h2``, ``SMTP``, ``ftp-data``.

    Names are compared without regard to case: RFC 7301 tells them apart, servers of the four may not.
    """
    first = _PART.split(alpn.lower(), maxsplit=1)[0]
    for each in ALWAYS.values():
        if first in each.names or first.rstrip("0123456789") in each.names:
            return each.protocol
    return None


def begun(prologue: str) -> tuple[ForbiddenProtocol, str] | None:
    """Return the protocol that could be spoken after `prologue`, and the words that would do it; None if none could.

    Whoever must begin with ``GE`` may say ``GET``, and whoever must begin with ``USER`` may as well.
    """
    said = prologue.upper()
    if _REPLY.match(said):
        return ALWAYS["smtp"].protocol, "a reply code"
    for each, word in _words():
        rest = said[len(word) :]
        if word.startswith(said) or (said.startswith(word) and (word[-1] == "/" or not rest[:1].isalnum())):
            return each.protocol, f"'{word}'"
    return None


def _words() -> Iterator[tuple[Always, str]]:
    for each in ALWAYS.values():
        for word in each.begins:
            yield each, word.upper()
