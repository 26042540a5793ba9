"""Frames that Suricata's decoder does not read as they stand, by the event that each raises."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from tests.ids.conversations import CLIENT, SERVER

_CLIENT6, _SERVER6 = "fd6a:756b:6900:1321::10", "fd6a:756b:6900:1322::10"
_MACS = bytes.fromhex("020000000002020000000001")
_IPV4, _IPV6 = 0x0800, 0x86DD
_ICMP, _TCP, _UDP, _ROUTING, _FRAGMENT, _GRE, _ESP, _AH, _ICMP6, _NONE, _TO, _SCTP = (
    *(1, 6, 17, 43, 44, 47, 50, 51, 58, 59, 60, 132),
)


def ethernet(kind: int, payload: bytes) -> bytes:
    """Return a frame."""
    return _MACS + struct.pack("!H", kind) + payload


def _ip4(
    protocol: int,
    payload: bytes,
    *,
    version: int = 4,
    options: bytes = b"",
    words: int | None = None,
    length: int | None = None,
    fragment: int = 0,
    number: int = 7,
) -> bytes:
    words = 5 + len(options) // 4 if words is None else words
    length = 20 + len(options) + len(payload) if length is None else length
    header = struct.pack("!BBHHHBBH", version << 4 | words, 0, length, number, fragment, 64, protocol, 0)
    header += ip_address(CLIENT).packed + ip_address(SERVER).packed + options
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + header[12:] + payload


def _ip6(protocol: int, payload: bytes, *, version: int = 6, length: int | None = None, hops: int = 64) -> bytes:
    length = len(payload) if length is None else length
    header = struct.pack("!IHBB", version << 28, length, protocol, hops)
    return header + ip_address(_CLIENT6).packed + ip_address(_SERVER6).packed + payload


def _tcp(options: bytes = b"", *, words: int | None = None) -> bytes:
    words = 5 + len(options) // 4 if words is None else words
    return struct.pack("!HHIIBBHHH", 50001, 40123, 1, 0, words << 4, 2, 8192, 0, 0) + options


def _udp(length: int | None = None, payload: bytes = b"datagram") -> bytes:
    return struct.pack("!HHHH", 50001, 40123, 8 + len(payload) if length is None else length, 0) + payload


def _v4(protocol: int, payload: bytes) -> bytes:
    return ethernet(_IPV4, _ip4(protocol, payload))


def _v6(protocol: int, payload: bytes, *, hops: int = 64) -> bytes:
    return ethernet(_IPV6, _ip6(protocol, payload, hops=hops))


def _options(options: bytes) -> bytes:
    return ethernet(_IPV4, _ip4(_UDP, _udp(), options=options))


def _gre(flags: int, protocol: int, payload: bytes = b"") -> bytes:
    return _v4(_GRE, struct.pack("!HH", flags, protocol) + payload)


def _session(payload: bytes) -> bytes:
    """Return a frame of a PPPoE session (RFC 2516)."""
    return ethernet(0x8864, b"\x11\0\0\1" + struct.pack("!H", len(payload)) + payload)


def _behind(*headers: tuple[int, bytes]) -> bytes:
    """Return a packet with extension headers; each is given without its first byte, the type of the next."""
    kinds = [kind for kind, _ in headers[1:]] + [_UDP]
    body = b"".join(bytes([kind]) + rest for kind, (_, rest) in zip(kinds, headers, strict=True))
    return _v6(headers[0][0], body + _udp())


def _fragment6(offset: int, payload: bytes, *, more: bool = True, number: int = 9) -> bytes:
    return _v6(_FRAGMENT, struct.pack("!BBHI", _UDP, 0, offset | more, number) + payload)


def _fragment4(offset: int, payload: bytes, *, more: bool = True, number: int = 9) -> bytes:
    return ethernet(_IPV4, _ip4(_UDP, payload, fragment=offset // 8 | (0x2000 if more else 0), number=number))


def _overlaps(version: int) -> list[bytes]:
    make = _fragment4 if version == 4 else _fragment6
    return [make(0, b"A" * 64, number=21), make(32, b"B" * 64, number=21), make(96, b"C" * 8, more=False, number=21)]


_PAD = b"\x01\x04\0\0\0\0"
_SPARE = b"\x00" + _PAD
"""Of an extension header, behind the type of the next: eight bytes in all, with padding alone."""
_UNKNOWN = b"\x00\x1e\x04\0\0\0\0"
_ROUTE0, _ROUTE2 = b"\x00\x00\x00\0\0\0\0", b"\x00\x02\x00\0\0\0\0"
_CHECKED = b"\x01\0\0\0\0\0\1\0\0\0\1"
"""An authentication header of twelve bytes."""
_ERROR4, _ERROR6 = struct.pack("!BBHI", 3, 0, 0, 0), struct.pack("!BBHI", 1, 0, 0, 0)

MALFORMED: dict[str, list[bytes]] = {
    "ipv4.pkt_too_small": [ethernet(_IPV4, _ip4(_UDP, b"")[:12])],
    "ipv4.hlen_too_small": [ethernet(_IPV4, _ip4(_UDP, _udp(), words=4))],
    "ipv4.iplen_smaller_than_hlen": [ethernet(_IPV4, _ip4(_UDP, _udp(), length=10))],
    "ipv4.trunc_pkt": [ethernet(_IPV4, _ip4(_UDP, _udp(), length=400))],
    "ipv4.opt_invalid": [_options(b"\x99\x04\0\0\0\0\0\0")],
    "ipv4.opt_invalid_len": [_options(b"\x83\x20\x04\0\0\0\0\0")],
    "ipv4.opt_malformed": [_options(b"\x07\x07\x02\0\0\0\0\0")],
    "ipv4.opt_pad_required": [_options(b"\x94\x04\0\0")],
    "ipv4.opt_eol_required": [_options(b"\x01\x01\x01\x94")],
    "ipv4.opt_duplicate": [_options(b"\x94\x04\0\0\x94\x04\0\0")],
    "ipv4.wrong_ip_version": [ethernet(_IPV4, _ip4(_UDP, _udp(), version=5))],
    "ipv4.icmpv6": [_v4(_ICMP6, struct.pack("!BBHI", 128, 0, 0, 0))],
    "ipv4.frag_pkt_too_large": [_fragment4(65528, b"A" * 64)],
    "ipv4.frag_overlap": _overlaps(4),
    "icmpv4.pkt_too_small": [_v4(_ICMP, b"\x08\0\0")],
    "icmpv4.unknown_type": [_v4(_ICMP, struct.pack("!BBHI", 99, 0, 0, 0))],
    "icmpv4.unknown_code": [_v4(_ICMP, struct.pack("!BBHI", 8, 9, 0, 0))],
    "icmpv4.ipv4_trunc_pkt": [_v4(_ICMP, _ERROR4 + _ip4(_UDP, b"")[:12])],
    "icmpv4.ipv4_unknown_ver": [_v4(_ICMP, _ERROR4 + _ip4(_UDP, _udp(), version=5))],
    "icmpv6.unknown_type": [_v6(_ICMP6, struct.pack("!BBHI", 127, 0, 0, 0))],
    "icmpv6.unknown_code": [_v6(_ICMP6, struct.pack("!BBHI", 128, 9, 0, 0))],
    "icmpv6.pkt_too_small": [_v6(_ICMP6, b"\x80\0\0")],
    "icmpv6.ipv6_unknown_version": [_v6(_ICMP6, _ERROR6 + _ip6(_UDP, _udp(), version=5))],
    "icmpv6.ipv6_trunc_pkt": [_v6(_ICMP6, _ERROR6 + _ip6(_UDP, b"")[:12])],
    "icmpv6.mld_message_with_invalid_hl": [_v6(_ICMP6, struct.pack("!BBHI", 131, 0, 0, 0) + bytes(16))],
    "icmpv6.unassigned_type": [_v6(_ICMP6, struct.pack("!BBHI", 50, 0, 0, 0))],
    "icmpv6.experimentation_type": [_v6(_ICMP6, struct.pack("!BBHI", 100, 0, 0, 0))],
    "ipv6.trunc_pkt": [ethernet(_IPV6, _ip6(_UDP, _udp(), length=400))],
    "ipv6.trunc_exthdr": [_v6(_TO, b"\x11\x09" + _PAD)],
    "ipv6.exthdr_dupl_fh": [
        _behind((_FRAGMENT, b"\0\0\0\0\0\0\1"), (_FRAGMENT, b"\0\0\1\0\0\0\1")),
    ],
    "ipv6.exthdr_useless_fh": [_behind((_FRAGMENT, b"\0\0\0\0\0\0\1"))],
    "ipv6.exthdr_dupl_rh": [_behind((_ROUTING, _ROUTE2), (_ROUTING, _ROUTE2))],
    "ipv6.exthdr_dupl_hh": [_behind((0, _SPARE), (0, _SPARE))],
    "ipv6.exthdr_dupl_dh": [_behind((_TO, _SPARE), (_TO, _SPARE), (_TO, _SPARE))],
    "ipv6.exthdr_dupl_ah": [_behind((_AH, _CHECKED), (_AH, _CHECKED))],
    "ipv6.exthdr_invalid_optlen": [_behind((_TO, b"\x00\x01\x20\0\0\0\0"))],
    "ipv6.wrong_ip_version": [ethernet(_IPV6, _ip6(_UDP, _udp(), version=5))],
    "ipv6.exthdr_ah_res_not_null": [_behind((_AH, b"\x01\0\1" + _CHECKED[3:]))],
    "ipv6.hopopts_unknown_opt": [_behind((0, _UNKNOWN))],
    "ipv6.hopopts_only_padding": [_behind((0, _SPARE))],
    "ipv6.dstopts_unknown_opt": [_behind((_TO, _UNKNOWN))],
    "ipv6.dstopts_only_padding": [_behind((_TO, _SPARE))],
    "ipv6.rh_type_0": [_behind((_ROUTING, _ROUTE0))],
    "ipv6.fh_non_zero_reserved_field": [_v6(_FRAGMENT, struct.pack("!BBHI", _UDP, 1, 1, 5) + b"A" * 16)],
    "ipv6.data_after_none_header": [_v6(_TO, bytes([_NONE]) + _SPARE + b"more")],
    "ipv6.unknown_next_header": [_v6(253, _udp())],
    "ipv6.icmpv4": [_v6(_ICMP, struct.pack("!BBHI", 8, 0, 0, 0))],
    "ipv6.frag_pkt_too_large": [_fragment6(65528, b"A" * 64, number=11)],
    "ipv6.frag_overlap": _overlaps(6),
    "ipv6.frag_invalid_length": [_fragment6(0, b"A" * 13, number=13)],
    "ipv6.ipv4_in_ipv6_too_small": [_v6(4, _ip4(_UDP, b"")[:12])],
    "ipv6.ipv4_in_ipv6_wrong_version": [_v6(4, _ip4(_UDP, _udp(), version=5))],
    "ipv6.ipv6_in_ipv6_too_small": [_v6(41, _ip6(_UDP, b"")[:12])],
    "ipv6.ipv6_in_ipv6_wrong_version": [_v6(41, _ip6(_UDP, _udp(), version=5))],
    "tcp.pkt_too_small": [_v4(_TCP, _tcp()[:12])],
    "tcp.hlen_too_small": [_v4(_TCP, _tcp(words=9))],
    "tcp.invalid_optlen": [_v4(_TCP, _tcp(words=4))],
    "tcp.opt_invalid_len": [_v4(_TCP, _tcp(b"\x02\x03\x05\0\0\0\0\0"))],
    "tcp.opt_duplicate": [_v4(_TCP, _tcp(b"\x02\x04\x05\xb4\x02\x04\x05\xb4"))],
    "tcp.opt_wscale_over_max": [_v4(_TCP, _tcp(b"\x03\x03\x0f\0"))],
    "udp.pkt_too_small": [_v4(_UDP, _udp(400))],
    "udp.hlen_too_small": [_v4(_UDP, _udp()[:5])],
    "udp.len_invalid": [_v4(_UDP, _udp(4))],
    "ethernet.pkt_too_small": [_MACS],
    "ethernet.unknown_ethertype": [ethernet(0x88B5, bytes(50))],
    "ppp.vju_pkt_too_small": [_session(b"\0\x2f" + bytes(8))],
    "ppp.ip4_pkt_too_small": [_session(b"\0\x21" + bytes(8))],
    "ppp.ip6_pkt_too_small": [_session(b"\0\x57" + bytes(8))],
    "ppp.wrong_type": [_session(b"\0\x03" + bytes(60))],
    "ppp.unsup_proto": [_session(b"\0\x2d" + bytes(60))],
    "pppoe.pkt_too_small": [ethernet(0x8864, b"\x11\0")],
    "pppoe.wrong_code": [ethernet(0x8863, b"\x11\x42\0\0\0\0" + bytes(40))],
    "pppoe.malformed_tags": [ethernet(0x8863, b"\x11\x09\0\0\0\x40\x01\x01\0\0")],
    "gre.pkt_too_small": [_v4(_GRE, b"\0\0")],
    "gre.wrong_version": [_gre(0x0003, _IPV4)],
    "gre.version0_recur": [_gre(0x0100, _IPV4)],
    "gre.version0_flags": [_gre(0x0008, _IPV4)],
    "gre.version0_hdr_too_big": [_gre(0xB000, _IPV4)],
    "gre.version0_malformed_sre_hdr": [_gre(0x4000, _IPV4, bytes(4) + b"\0\1\0\x40")],
    "gre.version1_chksum": [_gre(0x8001, 0x880B)],
    "gre.version1_route": [_gre(0x4001, 0x880B)],
    "gre.version1_ssr": [_gre(0x0801, 0x880B)],
    "gre.version1_recur": [_gre(0x0101, 0x880B)],
    "gre.version1_flags": [_gre(0x0009, 0x880B)],
    "gre.version1_no_key": [_gre(0x0001, 0x880B)],
    "gre.version1_wrong_protocol": [_gre(0x2001, _IPV4)],
    "gre.version1_hdr_too_big": [_gre(0x2001, 0x880B, b"\0")],
    "vlan.header_too_small": [ethernet(0x8100, b"\0")],
    "vlan.unknown_type": [ethernet(0x8100, b"\0\5\x88\xb5" + bytes(40))],
    "vlan.too_many_layers": [ethernet(0x8100, b"\0\0\x81\0" * 3 + b"\0\0\x08\0" + _ip4(_UDP, _udp()))],
    "ieee8021ah.header_too_small": [ethernet(0x88E7, b"\0" * 4)],
    "vntag.header_too_small": [ethernet(0x8926, b"\0")],
    "vntag.unknown_type": [ethernet(0x8926, b"\0\0\0\0\x88\xb5" + bytes(40))],
    "sctp.pkt_too_small": [_v4(_SCTP, bytes(4))],
    "esp.pkt_too_small": [_v4(_ESP, bytes(4))],
    "mpls.header_too_small": [ethernet(0x8847, b"\0\0")],
    "mpls.pkt_too_small": [ethernet(0x8847, b"\1\0\1\x40\x45")],
    "mpls.bad_label_router_alert": [ethernet(0x8847, b"\0\0\x11\x40" + _ip4(_UDP, _udp()))],
    "mpls.bad_label_implicit_null": [ethernet(0x8847, b"\0\0\x31\x40" + _ip4(_UDP, _udp()))],
    "mpls.bad_label_reserved": [ethernet(0x8847, b"\0\0\x51\x40" + _ip4(_UDP, _udp()))],
    "mpls.unknown_payload_type": [ethernet(0x8847, b"\1\0\1\x40" + b"\x90" + bytes(40))],
    "dce.pkt_too_small": [ethernet(0x8903, b"\0\0")],
    "nsh.header_too_small": [ethernet(0x894F, b"\0\0")],
    "nsh.unsupported_version": [ethernet(0x894F, b"\x40\x02\x02\x01" + bytes(40))],
    "nsh.bad_header_length": [ethernet(0x894F, b"\x00\x3f\x02\x01" + bytes(40))],
    "nsh.reserved_type": [ethernet(0x894F, b"\x00\x02\x00\x01" + bytes(40))],
    "nsh.unsupported_type": [ethernet(0x894F, b"\x00\x02\x03\x01" + bytes(40))],
    "nsh.unknown_payload": [ethernet(0x894F, b"\x00\x02\x02\x04" + bytes(40))],
    "too_many_layers": [_MACS + (b"\x89\x4f" + b"\0\2\2\3" + bytes(4) + _MACS) * 9 + b"\x88\xb5"],
}
"""By event, frames in order, of which one or more raise it."""

_FORGOTTEN = "a packet in a tunnel that is not decoded is forgotten; the kernel drops tunnels by their protocol"
_NEVER = "nothing in the source of 8.0 and 7.0 raises it"
_MEMORY = "raised when memory or a table is full"
NO_CAPTURE: dict[str, str] = {
    "decoder-afpacket-trunc-pkt": "AF_PACKET itself raises it, not a capture",
    "decoder-ipv4-opt-unknown": _NEVER,
    "decoder-ipv6-pkt-too-small": _NEVER,
    "decoder-ipv6-exthdr-dupl-eh": _NEVER,
    "decoder-gre-version1-malformed-sre-hdr": _NEVER,
    "decoder-ppp-pkt-too-small": _FORGOTTEN,
    "decoder-erspan-header-too-small": _FORGOTTEN,
    "decoder-erspan-unsupported-version": _FORGOTTEN,
    "decoder-erspan-too-many-vlan-layers": _FORGOTTEN,
    "decoder-ipv4-frag-ignored": _MEMORY,
    "decoder-ipv6-frag-ignored": _MEMORY,
    "stream-reassembly-no-segment": _MEMORY,
    "stream-reassembly-insert-memcap": _MEMORY,
    "stream-reassembly-insert-limit": _MEMORY,
    "stream-reassembly-insert-invalid": "no capture is known",
    "stream-reassembly-depth-reached": "streams are followed to their end",
    "stream-reassembly-urgent-oob-limit-reached": "urgent data are dropped before",
    "stream-suspected-rst-inject": "no capture is known",
    "stream-wrong-thread": "a capture is read by one thread",
}
"""Kind of signature, and why no capture raises it."""
