"""What protocols that must never be seen say: enough of each for whoever knows the protocol to recognise it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.ntp import NTPHeader
from scapy.layers.snmp import SNMP, SNMPget, SNMPvarbind
from scapy.layers.tftp import TFTP, TFTP_RRQ
from scapy.packet import Packet, Raw

from tests.ids.transcript import Ends, Turn, tcp_session

CLIENT, SERVER = "10.13.2.10", "10.13.2.74"
_ANY = 40123
"""A port that means nothing."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """One protocol on one port."""

    port: int
    turns: tuple[Turn, ...] = ()
    datagrams: tuple[bytes, ...] = ()
    """Instead of turns, over UDP, from the client and from the server in turn."""

    def packets(self) -> Iterator[Packet]:
        """Yield its packets."""
        if self.turns:
            yield from tcp_session(Ends(CLIENT, SERVER, 50001, self.port), self.turns)
        for number, datagram in enumerate(self.datagrams):
            yield udp(datagram, self.port, from_client=number % 2 == 0)


def udp(payload: bytes, port: int, *, from_client: bool = True) -> Packet:
    """Return one datagram between the client and a port of the server."""
    ends = (CLIENT, SERVER) if from_client else (SERVER, CLIENT)
    ports = (50001, port) if from_client else (port, 50001)
    macs = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
    return Ether(**macs) / IP(src=ends[0], dst=ends[1]) / UDP(sport=ports[0], dport=ports[1]) / Raw(payload)


def _said(*lines: bytes, server_first: bool = False) -> tuple[Turn, ...]:
    return tuple(Turn((number % 2 == 0) is not server_first, line) for number, line in enumerate(lines))


def _hex(text: str) -> bytes:
    return bytes.fromhex(text)


_HTTP = (b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
_HTTP2 = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _hex("000000040000000000") + _hex("00000401050000000182868441"),
    _hex("000000040000000000") + _hex("000000040100000000"),
)
_RPC = _hex("80000028 72fe1d13 00000000 00000002 000186a3 00000003 00000000 00000000 00000000 00000000 00000000")
_RPC_REPLY = _hex("80000018 72fe1d13 00000001 00000000 00000000 00000000 00000000")
_DCERPC = _hex(
    "05000b03100000004800000001000000b810b810000000000100000000000100"
    "c84f324b7016d30112785a47bf6ee18803000000045d888aeb1cc9119fe808002b10486002000000"
)
_DCERPC_UDP = _hex(
    "04002800100000000000000000000000000000000000000067 6d3dfc7a1bdb4f96a86b79f2b5b0d1"
    "112233445566778899aabbccddeeff00000000000100000000000000ffffffff0800000000000000"
)
_SMB = _hex(
    "00000054ff534d4272000000001843c80000000000000000000000000000feff00000000003100024c414e4d414e312e3000024c4d312e325830303200"
    "024e54204c414e4d414e20312e3000024e54204c4d20302e313200"
)
_SMB_ANSWER = _hex("00000023ff534d4272000000009843c80000000000000000000000000000feff0000000000ffff00")
_KERBEROS = _hex(
    "6a6e306ca103020105a20302010aa460305ea00703050050800000a1123010a003020101a10930071b0561646d696ea2081b0641"
    "2e54455354a31b3019a003020102a11230101b066b72627467741b06412e54455354a511180f32303337303931333032343830355aa70602"
    "0412345678a8053003020112"
)
_SIP = (
    b"INVITE sip:b@b.example SIP/2.0\r\nVia: SIP/2.0/UDP a.example:5060;branch=z9hG4bK77\r\nMax-Forwards: 70\r\n"
    b"To: <sip:b@b.example>\r\nFrom: <sip:a@a.example>;tag=19\r\nCall-ID: a84b@a\r\nCSeq: 1 INVITE\r\n"
    b"Contact: <sip:a@a.example>\r\nContent-Length: 0\r\n\r\n"
)
_SIP_ANSWER = b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a.example:5060\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
_DNS = bytes(DNS(id=7, rd=1, qd=DNSQR(qname="a.example")))
_DNS_ANSWER = bytes(DNS(id=7, qr=1, rd=1, ra=1, rcode=3, qd=DNSQR(qname="a.example")))
_IKE = _hex(
    "00112233445566770000000000000000 21202208 00000000 0000005c"
    "22000030 0000002c 01010004 0300000c 0100000c800e0100 03000008 02000005 03000008 0300000c 00000008 0400000e"
    "00000010 00112233445566778899aabb"
)
_QUIC = _hex("c300000001088394c8f03e5157080000449e7b9aec34") + bytes(range(256)) * 5

CONVERSATIONS: dict[str, Conversation] = {
    "smtp": Conversation(
        _ANY,
        _said(
            b"220 mail ESMTP\r\n",
            b"EHLO a\r\n",
            b"250 mail\r\n",
            b"MAIL FROM:<a@b>\r\n",
            b"250 ok\r\n",
            server_first=True,
        ),
    ),
    "http": Conversation(_ANY, _said(*_HTTP)),
    "http2": Conversation(_ANY, _said(*_HTTP2)),
    "ftp": Conversation(
        _ANY,
        _said(
            b"220 ftp ready\r\n", b"USER a\r\n", b"331 password\r\n", b"PASS b\r\n", b"230 in\r\n", server_first=True
        ),
    ),
    "telnet": Conversation(
        23, _said(_hex("fffd18fffd20"), _hex("fffb18fffb20"), b"login: ", b"root\r\n", b"Password: ", server_first=True)
    ),
    "ssh": Conversation(_ANY, _said(b"SSH-2.0-OpenSSH_9.2\r\n", b"SSH-2.0-OpenSSH_9.2\r\n")),
    "rdp": Conversation(
        3389,
        _said(
            _hex("0300002b26e00000000000436f6f6b69653a206d737473686173683d610d0a") + _hex("0100080003000000"),
            _hex("030000130ed000001234000201080002000000"),
        ),
    ),
    "rfb": Conversation(5900, _said(b"RFB 003.008\n", b"RFB 003.008\n", b"\x01\x02", server_first=True)),
    "smb": Conversation(445, _said(_SMB, _SMB_ANSWER)),
    "dcerpc-tcp": Conversation(_ANY, _said(_DCERPC, _hex("05000c0310000000") + bytes(52))),
    "dcerpc-udp": Conversation(_ANY, datagrams=(_DCERPC_UDP, _DCERPC_UDP)),
    "nfs": Conversation(2049, _said(_RPC, _RPC_REPLY)),
    "pgsql": Conversation(
        5432,
        _said(
            _hex("00000025000300007573657200610064617461626173650072656769737472790000") + b"\0\0\0",
            _hex("520000000800000003"),
        ),
    ),
    "ldap-tcp": Conversation(389, _said(_hex("300c020101600702010304008000"), _hex("300c02010161070a010004000400"))),
    "ldap-udp": Conversation(
        389, datagrams=(_hex("300c020101600702010304008000"), _hex("300c02010161070a010004000400"))
    ),
    "krb5-tcp": Conversation(88, _said(len(_KERBEROS).to_bytes(4, "big") + _KERBEROS, b"\0\0\0\x04abcd")),
    "krb5-udp": Conversation(88, datagrams=(_KERBEROS, _KERBEROS)),
    "imap": Conversation(
        _ANY, _said(b"* OK IMAP4rev1 ready\r\n", b"a1 LOGIN a b\r\n", b"a1 OK in\r\n", server_first=True)
    ),
    "pop3": Conversation(
        _ANY, _said(b"+OK POP3 ready\r\n", b"CAPA\r\n", b"+OK\r\n.\r\n", b"STAT\r\n", server_first=True)
    ),
    "dns-tcp": Conversation(
        53, _said(len(_DNS).to_bytes(2, "big") + _DNS, len(_DNS_ANSWER).to_bytes(2, "big") + _DNS_ANSWER)
    ),
    "dns-udp": Conversation(53, datagrams=(_DNS, _DNS_ANSWER)),
    "mdns": Conversation(5353, datagrams=(_DNS, _DNS_ANSWER)),
    "ntp": Conversation(123, datagrams=(bytes(NTPHeader(version=4, mode=3)), bytes(NTPHeader(version=4, mode=4)))),
    "dhcp": Conversation(
        67,
        datagrams=(bytes(BOOTP(chaddr=b"\2\0\0\0\0\1", xid=7) / DHCP(options=[("message-type", "discover"), "end"])),),
    ),
    "tftp": Conversation(69, datagrams=(bytes(TFTP() / TFTP_RRQ(filename="a", mode="octet")),)),
    "snmp": Conversation(
        161,
        datagrams=(bytes(SNMP(community="public", PDU=SNMPget(varbindlist=[SNMPvarbind(oid="1.3.6.1.2.1.1.1.0")]))),),
    ),
    "sip-tcp": Conversation(5060, _said(_SIP, _SIP_ANSWER)),
    "sip-udp": Conversation(5060, datagrams=(_SIP, _SIP_ANSWER)),
    "mqtt": Conversation(1883, _said(_hex("101000044d5154540402003c000474657374"), _hex("20020000"))),
    "quic": Conversation(443, datagrams=(_QUIC[:1252],)),
    "ike": Conversation(500, datagrams=(_IKE,)),
    "bittorrent-dht": Conversation(
        6881,
        datagrams=(
            b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe",
            b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re",
        ),
    ),
    "telnet-negotiation": Conversation(
        _ANY, _said(_hex("fffd18fffd20fffd23"), _hex("fffb18fffb20"), server_first=True)
    ),
    "mysql": Conversation(
        _ANY,
        _said(_hex("4a0000000a") + b"8.0.36\x00" + bytes(63), _hex("2000000185a60300") + bytes(28), server_first=True),
    ),
    "tds": Conversation(
        _ANY, _said(_hex("1201001a0000010000000b000601001100 01ff") + bytes(8), _hex("0401001a00000100") + bytes(18))
    ),
    "tns": Conversation(
        _ANY,
        _said(
            _hex("007a0000010000000138012c0000080 07fff860e0000010000".replace(" ", ""))
            + bytes(34)
            + b"(DESCRIPTION=(CONNECT_DATA=(SERVICE_NAME=a)))",
            _hex("0020000002000000") + bytes(24),
        ),
    ),
    "drda": Conversation(
        _ANY, _said(_hex("0026d041000100201041") + bytes(28), _hex("0010d002000100 0a1443".replace(" ", "")) + bytes(8))
    ),
    "rlogin": Conversation(_ANY, _said(b"\0root\0root\0xterm/38400\0", b"\0")),
    "socks5": Conversation(_ANY, _said(b"\x05\x01\x00", b"\x05\x00")),
    "wireguard": Conversation(51820, datagrams=(b"\x01\0\0\0" + bytes(144),)),
    "openvpn": Conversation(1194, datagrams=(b"\x38" + b"abcdefgh" + bytes(5),)),
}
"""By what follows ``protocol-`` in the kind of the signature."""
