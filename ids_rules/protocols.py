"""Protocols that must never be seen, on any port: recognised by what is said, not by where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ids_rules.signature import Action, Classtype, Signature

_ENTERPRISE = "attack.mitre.org/techniques/"


@dataclass(frozen=True, slots=True)
class Protocol:
    """A protocol that the engine recognises by itself (``app-layer-protocol``)."""

    name: str
    """As the engine calls it."""
    title: str
    transports: tuple[str, ...]
    technique: str


RECOGNISED = (
    Protocol("smtp", "SMTP", ("tcp",), "T1071.003"),
    Protocol("http", "HTTP/1", ("tcp",), "T1071.001"),
    Protocol("http2", "HTTP/2", ("tcp",), "T1071.001"),
    Protocol("ftp", "FTP", ("tcp",), "T1071.002"),
    Protocol("telnet", "Telnet", ("tcp",), "T1021"),
    Protocol("ssh", "SSH", ("tcp",), "T1021.004"),
    Protocol("rdp", "RDP", ("tcp",), "T1021.001"),
    Protocol("rfb", "VNC (RFB)", ("tcp",), "T1021.005"),
    Protocol("smb", "SMB", ("tcp",), "T1021.002"),
    Protocol("dcerpc", "DCE/RPC", ("tcp", "udp"), "T1021.003"),
    Protocol("nfs", "NFS", ("tcp",), "T1021"),
    Protocol("pgsql", "PostgreSQL", ("tcp",), "T1213.006"),
    Protocol("ldap", "LDAP", ("tcp", "udp"), "T1087.002"),
    Protocol("krb5", "Kerberos", ("tcp", "udp"), "T1558"),
    Protocol("imap", "IMAP", ("tcp",), "T1071.003"),
    Protocol("dns", "DNS", ("tcp", "udp"), "T1071.004"),
    Protocol("mdns", "mDNS", ("udp",), "T1071.004"),
    Protocol("ntp", "NTP", ("udp",), "T1071"),
    Protocol("dhcp", "DHCP", ("udp",), "T1557.003"),
    Protocol("tftp", "TFTP", ("udp",), "T1105"),
    Protocol("snmp", "SNMP", ("udp",), "T1602.001"),
    Protocol("sip", "SIP", ("tcp", "udp"), "T1071"),
    Protocol("mqtt", "MQTT", ("tcp",), "T1071.005"),
    Protocol("ike", "IKE", ("udp",), "T1572"),
    Protocol("bittorrent-dht", "BitTorrent DHT", ("udp",), "T1090.003"),
)
"""Those that have a parser in Suricata 8.0 and no place in a network of this kind.

WebSocket and FTP data connections are not among them: HTTP and the FTP control connection that they come from are
dropped before there can be any.
"""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A protocol that the engine does not recognise, or on its usual port only; by bytes that its first message has."""

    name: str
    title: str
    transport: str
    match: tuple[str, ...]
    technique: str
    reference: str
    direction: str = "to_server"


_EARLY = ("stream_size:both,<,1000", "dsize:<128")
"""Unbounded, such a rule looks at every packet of every connection."""

PATTERNS = (
    Pattern(
        "telnet-negotiation",
        "Telnet negotiation",
        "tcp",
        # IAC WILL, WONT, DO or DONT and an option (RFC 854), twice in a row.
        (*_EARLY, 'content:"|ff|"', r'pcre:"/^(\xff[\xfb-\xfe][\x00-\x31]){2}/"'),
        "T1021",
        "www.rfc-editor.org/rfc/rfc854",
        "",
    ),
    Pattern(
        "mysql",
        "MySQL",
        "tcp",
        # Server greeting: length, sequence 0, protocol version 10, then the version as text.
        (*_EARLY, 'content:"|00 00 0a|"; offset:2; depth:3', r'pcre:"/^..\x00\x00\x0a[0-9]+\.[0-9]+\./s"'),
        "T1213.006",
        "dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_packets_protocol_handshake_v10.html",
        "to_client",
    ),
    Pattern(
        "tds",
        "SQL Server (TDS)",
        "tcp",
        # PRELOGIN, end of message; its first option token is VERSION ([MS-TDS] 2.2.6.5).
        (
            *_EARLY,
            'content:"|12 01|"; startswith',
            'content:"|00 00|"; offset:4; depth:2',
            'content:"|00 00|"; offset:8; depth:2',
        ),
        "T1213.006",
        "learn.microsoft.com/openspecs/windows_protocols/ms-tds/60f56408-0188-4cd5-8b90-25c6f2423868",
    ),
    Pattern(
        "tns",
        "Oracle (TNS)",
        "tcp",
        # CONNECT packet: type 1, and the descriptor in its data.
        (
            "stream_size:both,<,1000",
            'content:"|01 00|"; offset:4; depth:2',
            'content:"(DESCRIPTION="; nocase; offset:24',
        ),
        "T1213.006",
        "docs.oracle.com/en/database/oracle/oracle-database/19/netag/",
    ),
    Pattern(
        "drda",
        "Db2 (DRDA)",
        "tcp",
        # DSS header with magic 0xD0, then the EXCSAT command (0x1041).
        ("stream_size:both,<,2000", 'content:"|d0|"; offset:2; depth:1', 'content:"|10 41|"; offset:8; depth:2'),
        "T1213.006",
        "publications.opengroup.org/c114",
    ),
    Pattern(
        "rlogin",
        "rlogin",
        "tcp",
        # An empty string, then two user names and a terminal with its speed (RFC 1282).
        (
            *_EARLY,
            'content:"|00|"; startswith',
            r'pcre:"/^\x00[\x21-\x7e]+\x00[\x21-\x7e]+\x00[\x21-\x7e]+\/[0-9]+\x00/"',
        ),
        "T1021",
        "www.rfc-editor.org/rfc/rfc1282",
    ),
    Pattern(
        "socks5",
        "SOCKS 5",
        "tcp",
        # Version 5 and as many methods as the message is long (RFC 1928).
        (*_EARLY, 'content:"|05|"; startswith', r'pcre:"/^\x05(\x01[\x00\x02]|\x02\x00[\x01\x02])$/"'),
        "T1090",
        "www.rfc-editor.org/rfc/rfc1928",
    ),
    Pattern(
        "pop3",
        "POP3",
        "tcp",
        # The greeting (RFC 1939, 4); the engine takes USER and PASS for FTP.
        (*_EARLY, 'content:"+OK "; startswith'),
        "T1071.003",
        "www.rfc-editor.org/rfc/rfc1939",
        "to_client",
    ),
    Pattern(
        "quic",
        "QUIC",
        "udp",
        # An Initial packet: long header, version 1 or 2, in a datagram of at least 1200 bytes (RFC 9000, RFC 9369).
        ("dsize:>1199", r'pcre:"/^[\xc0-\xff](\x00\x00\x00\x01|\x6b\x33\x43\xcf)/"'),
        "T1071.001",
        "www.rfc-editor.org/rfc/rfc9000",
    ),
    Pattern(
        "wireguard",
        "WireGuard",
        "udp",
        ("dsize:148", 'content:"|01 00 00 00|"; startswith'),
        "T1572",
        "www.wireguard.com/protocol/",
    ),
    Pattern(
        "openvpn",
        "OpenVPN",
        "udp",
        # P_CONTROL_HARD_RESET_CLIENT_V2, key 0, no acknowledgements, packet 0.
        ("dsize:<64", 'content:"|38|"; startswith', 'content:"|00 00 00 00 00|"; offset:9; depth:5'),
        "T1572",
        "openvpn.net/community-docs/openvpn-protocol.html",
    ),
)


def forbidden_protocols() -> Iterator[Signature]:
    """Yield the signatures of every protocol that must never be seen."""
    for protocol in RECOGNISED:
        for transport in protocol.transports:
            yield Signature(
                id=f"protocol-{protocol.name}" + (f"-{transport}" if len(protocol.transports) > 1 else ""),
                action=Action.DROP,
                header=f"{transport} any any -> any any",
                message=f"{protocol.title} is spoken",
                match=(f"app-layer-protocol:{protocol.name}",),
                classtype=Classtype.POLICY_VIOLATION,
                technique=protocol.technique,
                reference=_ENTERPRISE + protocol.technique.replace(".", "/"),
            )
    for pattern in PATTERNS:
        flow = (f"flow:established,{pattern.direction}",) if pattern.direction else ("flow:established",)
        yield Signature(
            id=f"protocol-{pattern.name}",
            action=Action.DROP,
            header=f"{pattern.transport} any any -> any any",
            message=f"{pattern.title} is spoken",
            match=(*(flow if pattern.transport == "tcp" else ()), *pattern.match),
            classtype=Classtype.POLICY_VIOLATION,
            technique=pattern.technique,
            reference=pattern.reference,
        )
