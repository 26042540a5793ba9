"""Signatures for Suricata 7.0, which lacks keywords and parsers of 8.0: the nearest form of each that stays closed.

What it lacks: ``absent``, ``app-layer-protocol:unknown``, ``tls.alpn``, ``flow.bytes_*``, the parsers of LDAP and mDNS;
it does not know IMAP by its greeting, and its ``ssl_version:!tls1.2`` does not match TLS 1.3.  All that its rules have
of their own is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from ids_rules.oddities import MOST_BYTES
from ids_rules.signature import Signature, content
from ids_rules.tls_policy import name_list, not_in, pinned_list
from ids_rules.version import Suricata
from netpolicy.intent.model import FirewallIntent, FlowIntent
from netpolicy.topology.model import Assurance

LIMITS = {
    "tls-alpn": "a client that writes the protocol's name elsewhere into its ClientHello may offer another one",
}
"""Kinds of signatures that hold less than for Suricata 8, and what passes them."""

_HANDSHAKE = 'content:"|16 03|"; startswith'
_UNANSWERED = "stream_size:server,<,2"
"""The server has said nothing yet."""
_STREAM_TO_SERVER = "flow:established,to_server,only_stream"
_AFTER_HELLO = "byte_jump:2,1,relative"
"""Behind the first record, which is the whole ClientHello: tls-client-hello-split."""
_OTHER_VERSIONS = {
    Assurance.INSPECT: "ssl_version:sslv2,sslv3,tls1.0,tls1.1,tls1.3",
    Assurance.TERMINATE: "ssl_version:sslv2,sslv3,tls1.0,tls1.1,tls1.2",
}
_LDAP = (
    r'pcre:"/^\x30(?:[\x05-\x7f]|\x81.|\x82..|\x84....)\x02(?:\x01.|\x02..|\x03...|\x04....)'
    r'[\x42\x60\x61\x63-\x65\x77\x78]/s"'
)
"""LDAPMessage with its number and an operation that a session may begin with (RFC 4511, 4.1.1)."""

_MATCH = {
    "protocol-imap": ("flow:established,to_client", "stream_size:both,<,1000", 'content:"* OK "; startswith'),
    "protocol-ldap-tcp": ("flow:established", "stream_size:both,<,1000", 'content:"|30|"; startswith', _LDAP),
    "protocol-ldap-udp": ('content:"|30|"; startswith', _LDAP),
    "protocol-mdns": ("dsize:>11", r'pcre:"/^..[\x00\x01\x80-\x87][\x00-\x9f]\x00.\x00/s"'),
    "protocol-sip-tcp": ("flow:established", "stream_size:both,<,4000", 'content:"SIP/2.0"; depth:256'),
    "tls-first-bytes": (_STREAM_TO_SERVER, _UNANSWERED, 'content:!"|16 03|"; startswith'),
    "tls-client-hello": (
        _STREAM_TO_SERVER,
        _UNANSWERED,
        _HANDSHAKE,
        "isdataat:10",
        # At most 2 KiB, so that what follows is seen together with it (Suricata.window).
        r'pcre:!"/^\x16\x03[\x00-\x04][\x00-\x07].\x01\x00..\x03[\x00-\x04]/s"',
    ),
    "size-toserver": ("flow:established", f"stream_size:client,>,{MOST_BYTES}"),
    "size-toclient": ("flow:established", f"stream_size:server,>,{MOST_BYTES}"),
}
"""By kind, what is matched instead."""

_HEADER = {"protocol-mdns": "udp any any -> any 5353"}


def in_seven(intent: FirewallIntent, signatures: Iterable[Signature]) -> Iterator[Signature]:
    """Yield the signatures of a firewall as Suricata 7 takes them."""
    flows: dict[str | None, FlowIntent] = {flow.id: flow for flow in intent.flows}
    for signature in signatures:
        if signature.id in _MATCH:
            header = _HEADER.get(signature.id, signature.header)
            yield _other(signature, _MATCH[signature.id], header=header)
        elif signature.id in _TLS:
            yield _other(signature, _TLS[signature.id](signature, flows[signature.flow]))
        else:
            yield signature
        if signature.id in _BESIDE:
            yield from _BESIDE[signature.id](signature, flows[signature.flow])


def _other(signature: Signature, match: tuple[str, ...], *, header: str | None = None) -> Signature:
    return replace(signature, match=match, header=header or signature.header, version=Suricata.V7)


def _version(_signature: Signature, flow: FlowIntent) -> tuple[str, ...]:
    return ("flow:established,to_client", _OTHER_VERSIONS[flow.assurance])


def _name(_signature: Signature, flow: FlowIntent) -> tuple[str, ...]:
    return ("flow:established,to_server", f"tls.sni; {not_in(name_list(flow.id))}")


def _alpn(_signature: Signature, flow: FlowIntent) -> tuple[str, ...]:
    """Match a ClientHello that is there to its end and holds no extension with this protocol as the only one."""
    size = len(flow.alpn)
    extension = bytes((0, 16, 0, size + 3, 0, size + 1, size)).hex(" ")
    offered = f'content:!"|{extension}|{content(flow.alpn)}"'
    return (_STREAM_TO_SERVER, _UNANSWERED, _HANDSHAKE, f"{_AFTER_HELLO},post_offset -1", offered)


def _certificate(signature: Signature, _flow: FlowIntent) -> tuple[str, ...]:
    direction = "to_server" if signature.id == "tls-client-certificate" else "to_client"
    return (f"flow:established,{direction}", f"tls.cert_fingerprint; {not_in(pinned_list(str(signature.end)))}")


_TLS: dict[str, Callable[[Signature, FlowIntent], tuple[str, ...]]] = {
    "tls-version": _version,
    "tls-name": _name,
    "tls-alpn": _alpn,
    "tls-client-certificate": _certificate,
    "tls-server-certificate": _certificate,
}
"""By kind, what is matched instead in a flow."""


def _no_name(name: Signature, _flow: FlowIntent) -> Iterator[Signature]:
    """Yield what stands for ``absent``: no extension 0 among those that JA3 lists."""
    match = ("flow:established,to_server", r'ja3.string; pcre:!"/^[^,]*,[^,]*,(?:[0-9]+-)*0(?:-[0-9]+)*,/"')
    yield replace(_other(name, match), id="tls-no-name", message="the client does not say which server it asks for")


def _whole_hello(hello: Signature, flow: FlowIntent) -> Iterator[Signature]:
    """Yield what stands for ``absent`` of the client: the record after its ClientHello holds its certificate."""
    if flow.assurance is not Assurance.INSPECT:
        return
    split = (
        _STREAM_TO_SERVER,
        _UNANSWERED,
        _HANDSHAKE,
        "isdataat:8",
        "byte_math:bytes 2,offset 3,oper -,rvalue 4,result whole",
        "byte_test:3,!=,whole,6",
    )
    yield replace(
        _other(hello, split),
        id="tls-client-hello-split",
        message="the ClientHello does not fill the client's first record",
    )
    none = (
        _STREAM_TO_SERVER,
        _HANDSHAKE,
        _AFTER_HELLO,
        "isdataat:11,relative",
        # A list of certificates shorter than 256 bytes holds none.
        r'pcre:!"/^\x16\x03[\x01-\x03]..\x0b\x00..\x00[\x01-\xff]/Rs"',
        f"stream_size:client,<,{Suricata.V7.window}",
    )
    yield replace(
        _other(hello, none),
        id="tls-client-no-certificate",
        message="the client shows no certificate",
        technique="T1078",
    )


def _shown_by_server(version: Signature, flow: FlowIntent) -> Iterator[Signature]:
    """Yield what stands for ``absent`` of the server: the message after its ServerHello is its certificate."""
    if flow.assurance is not Assurance.INSPECT:
        return
    match = (
        "flow:established,to_client,only_stream",
        _HANDSHAKE,
        "byte_jump:3,4,relative",
        "isdataat:5,relative",
        r'pcre:!"/^(?:\x16\x03[\x01-\x03]..)?\x0b/Rs"',
        "stream_size:server,<,2560",
    )
    yield replace(
        _other(version, match, header=version.header.replace("tls", "tcp", 1)),
        id="tls-server-no-certificate",
        message="the server shows no certificate",
        technique="T1557",
    )


_BESIDE: dict[str, Callable[[Signature, FlowIntent], Iterator[Signature]]] = {
    "tls-name": _no_name,
    "tls-client-hello": _whole_hello,
    "tls-version": _shown_by_server,
}
"""By kind, signatures that stand beside it in Suricata 7 alone."""
