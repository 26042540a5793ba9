"""Why a firewall drops a packet: the vocabulary that rules, counters, logs, probes and reports share.

The order of the members is the order in which a firewall judges: a packet that several reasons fit is counted under
the first of them.  Each reason has one named counter in the ruleset, ``deny_<value>``; a forbidden protocol has a
counter of its own, ``deny_forbidden_<protocol id with '-' written '_'>``.
"""

from __future__ import annotations

import enum


class DenyReason(enum.StrEnum):
    """One of the reasons, except that each forbidden protocol refines :attr:`FORBIDDEN`."""

    FRAGMENT = "fragment"
    """An IPv4 fragment (RFC 791: MF set or offset not 0) or IPv6 Fragment header, before defragmentation."""
    IP_OPTION = "ip_option"
    """IPv4 header longer than 20 bytes (source routing among them, RFC 7126)."""
    EXTENSION_HEADER = "extension_header"
    """An IPv6 extension header other than Fragment right after the fixed header (RFC 8200)."""
    TTL = "ttl"
    """TTL or Hop Limit of 0 or 1: forwarding it would answer with an ICMP error."""
    ICMP_ERROR = "icmp_error"
    """An ICMP error (types 3, 4, 5, 11, 12 of RFC 792; below 128 of RFC 4443) or redirect: no connection needs one, and
    what it quotes could be anything."""
    SYN_DATA = "syn_data"
    """A TCP segment with SYN or RST that carries payload, or asks for TCP Fast Open (RFC 7413): bytes before a
    handshake, or after the end."""
    SPOOFED_SOURCE = "spoofed_source"
    """The source does not live behind the interface it came in by (RFC 3704, strict)."""
    NO_ROUTE = "no_route"
    """The destination is neither this firewall nor on a network it knows; multicast and broadcast too."""
    INVALID = "invalid"
    """Connection tracking knows no connection that the packet could belong to or begin."""
    SPOOFED_DESTINATION = "spoofed_destination"
    """Routing would send it out by an interface behind which the destination does not live."""
    NOT_CONNECTED = "not_connected"
    """One end is a site that is not connected (不接続団体) and the other is not in the same site."""
    NOT_SYN = "not_syn"
    """Permitted by address and port, but a new TCP connection that does not begin with a lone SYN."""
    EXPIRED = "expired"
    """Permitted, but after the flow's last day."""
    OUTSIDE_HOURS = "outside_hours"
    """Permitted, but outside the flow's service hours or batch windows."""
    SOURCE_RATE = "source_rate"
    """Permitted, but more new connections per second than one source of the flow may have."""
    SOURCE_CONNECTIONS = "source_connections"
    """Permitted, but more concurrent connections than one source of the flow may have."""
    RATE = "rate"
    """Permitted, but more new connections per second than the flow may have."""
    CONNECTIONS = "connections"
    """Permitted, but more concurrent connections than the flow may have."""
    RELAY = "relay"
    """Permitted through the firewall's relay, which does not run."""
    FORBIDDEN = "forbidden"
    """No flow permits it, and its port is that of a forbidden protocol."""
    NO_FLOW = "no_flow"
    """No flow permits it."""
    NO_PATH = "no_path"
    """No path of the topology goes from this interface to that one."""
    INPUT = "input"
    """For the firewall itself, and no flow permits it."""
    OUTPUT = "output"
    """From the firewall itself, and not an answer to a permitted connection."""


FRAME_COUNTER = "deny_frame"
"""What is refused before anybody asks what is in it: a frame that no interface of the firewall takes from its wire."""


def deny_counter(reason: DenyReason, protocol: str | None = None) -> str:
    """Return the name of the counter of `reason`, for FORBIDDEN with the id of the forbidden `protocol`."""
    if reason is DenyReason.FORBIDDEN and protocol is not None:
        return f"deny_forbidden_{protocol.replace('-', '_')}"
    return f"deny_{reason.value}"


def flow_counter(flow: str) -> str:
    """Return the name of the counter of a flow's new connections (ids have no '_')."""
    return f"flow_{flow.replace('-', '_')}"
