"""What the engine's decoder and stream engine say of a packet, and what becomes of it.

A packet that raises an event of the decoder has not been read as a whole, or as another one than the kernel behind the
engine reads, so that it is dropped; likewise one of which the stream engine takes no stream.  Here is every event that
the pinned versions of Suricata have, with the reason for each that no signature drops.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ids_rules.signature import Action, Classtype, Signature
from ids_rules.version import Suricata

_RFC = "www.rfc-editor.org/rfc/"

_LAYERS: tuple[tuple[str, str, str], ...] = (
    ("", _RFC + "rfc2003", "too_many_layers"),
    ("afpacket", "docs.kernel.org/networking/packet_mmap.html", "trunc_pkt"),
    (
        "ipv4",
        _RFC + "rfc791",
        (
            "pkt_too_small hlen_too_small iplen_smaller_than_hlen trunc_pkt opt_invalid opt_invalid_len opt_malformed "
            "opt_pad_required opt_eol_required opt_duplicate opt_unknown wrong_ip_version icmpv6 frag_pkt_too_large "
            "frag_overlap frag_ignored"
        ),
    ),
    ("icmpv4", _RFC + "rfc792", "pkt_too_small unknown_type unknown_code ipv4_trunc_pkt ipv4_unknown_ver"),
    (
        "icmpv6",
        _RFC + "rfc4443",
        (
            "unknown_type unknown_code pkt_too_small ipv6_unknown_version ipv6_trunc_pkt mld_message_with_invalid_hl "
            "unassigned_type experimentation_type"
        ),
    ),
    (
        "ipv6",
        _RFC + "rfc8200",
        (
            "pkt_too_small trunc_pkt trunc_exthdr exthdr_dupl_fh exthdr_useless_fh exthdr_dupl_rh "
            "exthdr_dupl_hh exthdr_dupl_dh exthdr_dupl_ah exthdr_dupl_eh exthdr_invalid_optlen wrong_ip_version "
            "exthdr_ah_res_not_null hopopts_unknown_opt hopopts_only_padding dstopts_unknown_opt dstopts_only_padding "
            "rh_type_0 zero_len_padn fh_non_zero_reserved_field data_after_none_header unknown_next_header icmpv4 "
            "frag_pkt_too_large frag_overlap frag_invalid_length frag_ignored ipv4_in_ipv6_too_small "
            "ipv4_in_ipv6_wrong_version ipv6_in_ipv6_too_small ipv6_in_ipv6_wrong_version"
        ),
    ),
    (
        "tcp",
        _RFC + "rfc9293",
        "pkt_too_small hlen_too_small invalid_optlen opt_invalid_len opt_duplicate opt_wscale_over_max",
    ),
    ("udp", _RFC + "rfc768", "pkt_too_small hlen_too_small hlen_invalid len_invalid"),
    ("sll", "www.tcpdump.org/linktypes.html", "pkt_too_small"),
    ("sll2", "www.tcpdump.org/linktypes.html", "pkt_too_small"),
    ("ethernet", _RFC + "rfc894", "pkt_too_small unknown_ethertype"),
    (
        "ppp",
        _RFC + "rfc1661",
        "pkt_too_small vju_pkt_too_small ip4_pkt_too_small ip6_pkt_too_small wrong_type unsup_proto",
    ),
    ("pppoe", _RFC + "rfc2516", "pkt_too_small wrong_code malformed_tags"),
    (
        "gre",
        _RFC + "rfc2784",
        (
            "pkt_too_small wrong_version version0_recur version0_flags version0_hdr_too_big version0_malformed_sre_hdr "
            "version1_chksum version1_route version1_ssr version1_recur version1_flags version1_no_key "
            "version1_wrong_protocol version1_malformed_sre_hdr version1_hdr_too_big"
        ),
    ),
    ("vlan", "standards.ieee.org/ieee/802.1Q/10323", "header_too_small unknown_type too_many_layers"),
    ("ieee8021ah", "standards.ieee.org/ieee/802.1ah/3433", "header_too_small"),
    ("vntag", "standards.ieee.org/ieee/802.1BR/5203", "header_too_small unknown_type"),
    ("ipraw", "www.tcpdump.org/linktypes.html", "invalid_ip_version"),
    ("ltnull", "www.tcpdump.org/linktypes.html", "pkt_too_small unsupported_type"),
    ("sctp", _RFC + "rfc9260", "pkt_too_small"),
    ("esp", _RFC + "rfc4303", "pkt_too_small"),
    (
        "mpls",
        _RFC + "rfc3032",
        (
            "header_too_small pkt_too_small bad_label_router_alert bad_label_implicit_null bad_label_reserved "
            "unknown_payload_type"
        ),
    ),
    ("vxlan", _RFC + "rfc7348", "unknown_payload_type"),
    ("geneve", _RFC + "rfc8926", "unknown_payload_type"),
    (
        "erspan",
        "datatracker.ietf.org/doc/html/draft-foschiano-erspan",
        "header_too_small unsupported_version too_many_vlan_layers",
    ),
    ("dce", "datatracker.ietf.org/doc/html/rfc6325", "pkt_too_small"),
    ("chdlc", _RFC + "rfc1547", "pkt_too_small"),
    (
        "nsh",
        _RFC + "rfc8300",
        "header_too_small unsupported_version bad_header_length reserved_type unsupported_type unknown_payload",
    ),
)
"""Of the decoder: layer, where it is specified, and its events, as ``decode-event`` names them."""

_OTHER_LINK = "of links that are not Ethernet: an engine has none"
_NO_TUNNEL = "the configuration turns its decoder off, since what is in a tunnel is not looked into"
_RETIRED = "neither version raises it any more"
NOT_DROPPED: Mapping[str, str] = {
    "udp.hlen_invalid": _RETIRED,
    **dict.fromkeys(
        (
            *("sll.pkt_too_small", "sll2.pkt_too_small", "ltnull.pkt_too_small", "ltnull.unsupported_type"),
            *("ipraw.invalid_ip_version", "chdlc.pkt_too_small"),
        ),
        _OTHER_LINK,
    ),
    **dict.fromkeys(("vxlan.unknown_payload_type", "geneve.unknown_payload_type"), _NO_TUNNEL),
    "ipv6.zero_len_padn": "every host's report of its multicast groups has one (RFC 3810, 5.2); the kernel drops those",
}
"""Event of the decoder, and why no signature drops what raises it."""
NOT_IN_7 = frozenset({"tcp.opt_wscale_over_max", "ethernet.unknown_ethertype"})
"""Events of the decoder that came with 8.0, and would be an error in a rule for 7."""

STREAM: Mapping[str, str] = {
    "reassembly_overlap_different_data": "the same bytes are sent twice and differ",
    "reassembly_seq_gap": "bytes are acknowledged that have not been seen",
    "reassembly_no_segment": "bytes that no stream was read from",
    "reassembly_depth_reached": "bytes that no stream was read from, since it is long",
    "reassembly_insert_memcap": "bytes for which the engine has no memory",
    "reassembly_insert_limit": "bytes of which the engine keeps no more",
    "reassembly_insert_invalid": "bytes that are not of this stream",
    "reassembly_urgent_oob_limit_reached": "more urgent data than an engine tells from the others",
    "3whs_syn_flood": "many SYNs that differ, of one connection",
    "3whs_synack_tfo_data_ignored": "SYN-ACK that leaves out the SYN's data",
    "pkt_broken_ack": "a number is acknowledged without the flag for it",
    "rst_with_data": "RST with data",
    "pkt_invalid_timestamp": "segment with the timestamp of an older one",
    "suspected_rst_inject": "an end goes on after its RST",
    "wrong_thread": "packet of a connection that another thread follows",
}
"""Event of the stream engine for which a signature drops, and what it says."""
STREAM_BYTES: Mapping[str, str] = {
    "est_packet_out_of_window": "bytes outside of the window",
    "pkt_invalid_ack": "bytes that acknowledge what was never said, or long ago",
    "pkt_bad_window_update": "bytes that shrink the window",
}
"""The same, if there are bytes in it. Of these the engine reads nothing, and hands them on: an established connection
does not ask ``drop-invalid`` (StreamTcpPacketStateEstablished in stream-tcp.c, 8.0.6)."""
_REFUSED = """
    3whs_ack_in_wrong_dir 3whs_async_wrong_seq 3whs_right_seq_wrong_ack_evasion 3whs_synack_in_wrong_direction
    3whs_synack_resend_with_diff_ack 3whs_synack_resend_with_diff_seq 3whs_synack_toserver_on_syn_recv
    3whs_synack_flood 3whs_syn_resend_diff_seq_on_syn_recv 3whs_syn_toclient_on_syn_recv 3whs_wrong_seq_wrong_ack
    3whs_ack_data_inject 4whs_synack_with_wrong_ack 4whs_synack_with_wrong_syn 4whs_wrong_seq 4whs_invalid_ack
    closewait_ack_out_of_window closewait_fin_out_of_window closewait_pkt_before_last_ack closewait_invalid_ack
    closing_ack_wrong_seq closing_invalid_ack est_synack_resend
    est_synack_resend_with_diff_ack est_synack_resend_with_diff_seq est_synack_toserver est_syn_resend
    est_syn_resend_diff_seq est_syn_toclient fin_invalid_ack fin1_ack_wrong_seq fin1_fin_wrong_seq
    fin1_invalid_ack fin2_ack_wrong_seq fin2_fin_wrong_seq fin2_invalid_ack fin_but_no_session fin_out_of_window
    fin_syn lastack_ack_wrong_seq lastack_invalid_ack rst_but_no_session timewait_ack_wrong_seq timewait_invalid_ack
    shutdown_syn_resend rst_invalid_ack
    3whs_synack_with_wrong_ack
"""
DROP_INVALID = frozenset(_REFUSED.split())
"""Events of packets that the stream engine refuses: ``stream.drop-invalid`` drops each, without a signature."""
_AGAIN = "an honest end sends again what it takes for lost; what differs is an overlap"
NO_MATTER: Mapping[str, str] = {
    "pkt_retransmission": _AGAIN,
    "est_pkt_before_last_ack": _AGAIN,
    "pkt_spurious_retransmission": _AGAIN,
    "reassembly_segment_before_base_seq": _AGAIN,
    "est_invalid_ack": "comes with pkt_invalid_ack, for which there is a signature",
    "est_ack_zwp_data": "the answer to a probe of a closed window (RFC 9293, 3.8.6.1)",
}
"""Event of the stream engine that nothing is done about, since permitted conversations raise it, and why."""


def decoder_events() -> Iterator[str]:
    """Yield every event of the decoder that the pinned versions have, as ``decode-event`` names it."""
    return (event for event, _ in _referenced())


def decoder(version: Suricata) -> Iterator[Signature]:
    """Yield the signatures that drop what is not decoded as it stands."""
    for event, reference in _referenced():
        if event in NOT_DROPPED or (version is Suricata.V7 and event in NOT_IN_7):
            continue
        yield Signature(
            id=decoder_kind(event),
            action=Action.DROP,
            header="pkthdr any any -> any any",
            message=f"cannot be decoded as it stands: {event}",
            match=(f"decode-event:{event}",),
            classtype=Classtype.PROTOCOL_COMMAND_DECODE,
            technique="T1499.001",
            reference=reference,
        )


def _referenced() -> Iterator[tuple[str, str]]:
    """Yield every event of the decoder, with what says how the layer that it is about looks."""
    for layer, reference, events in _LAYERS:
        yield from ((f"{layer}.{event}".lstrip("."), reference) for event in events.split())


def decoder_kind(event: str) -> str:
    """Return the kind of signature that drops what raises an event."""
    return "decoder-" + event.replace(".", "-").replace("_", "-")
