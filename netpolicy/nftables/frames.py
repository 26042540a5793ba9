"""The frame table: which frames the kernel takes from a wire at all, before anything looks into them."""

from __future__ import annotations

from collections.abc import Iterator

from netpolicy.intent.model import FirewallIntent, InterfaceIntent
from netpolicy.nftables.denials import LOG_LIMIT
from netpolicy.nftables.names import FRAME_TABLE, PairNames
from netpolicy.nftables.text import block, quoted
from netpolicy.reasons import FRAME_COUNTER

_PRIORITY = -500
"""Before everything else at the hook, and so before connection tracking and the main table."""


def emit_frames(intent: FirewallIntent) -> str:
    """Return ``frames.nft``: one chain at the ingress of each interface.

    Linux takes off any number of VLAN tags of id 0 (IEEE 802.1Q, 6.9.1) and hands on what is inside, as if there had
    been none; an engine that stops at three has not seen what the kernel then delivers.  Here a frame is judged as it
    was on the wire: ``ether type`` is compared with the type that follows the MAC addresses, and nf_tables puts back a
    tag that a card or the kernel has taken off by then.  Load it when all interfaces exist: a chain without its device
    does nothing.
    """
    names = PairNames()
    prefix = quoted(f"netpolicy fw={intent.id} deny={FRAME_COUNTER.removeprefix('deny_')} ")
    body: list[str] = [f"counter {FRAME_COUNTER} {{ }}"]
    for interface in intent.interfaces:
        rules = [
            f"type filter hook ingress device {quoted(interface.name)} priority {_PRIORITY}; policy drop;",
            *_accepted(interface),
            f"{LOG_LIMIT} log prefix {prefix} level info",
            f"counter name {FRAME_COUNTER} drop",
        ]
        body.extend(block(f"chain {names.get('ingress', interface.name)}", rules))
    lines = [
        "#!/usr/sbin/nft -f",
        f"# Frames that firewall {intent.id} takes from its wires. Compiled by netpolicy; load when interfaces exist.",
        "",
        f"table netdev {FRAME_TABLE}",
        f"delete table netdev {FRAME_TABLE}",
        *block(f"table netdev {FRAME_TABLE}", body),
        "",
    ]
    return "\n".join(lines)


def _accepted(interface: InterfaceIntent) -> Iterator[str]:
    """Yield what passes: IP of the families that the interface has, and questions for its own addresses.

    IPv4 to another MAC address than the interface's is nobody's here: the networks behind it have no multicast and no
    broadcast.  IPv6 asks for neighbours by multicast (RFC 4861).  Neighbours are permanent entries, so the kernel needs
    no answer to ARP (RFC 826), and takes none.
    """
    own = [str(address) for address in interface.addresses if address.version == 4]
    if own:
        yield "ether type ip meta pkttype host accept"
        yield f"ether type arp arp operation request arp daddr ip {{ {', '.join(own)} }} accept"
    if any(address.version == 6 for address in interface.addresses):
        yield "ether type ip6 meta pkttype { host, multicast } accept"
