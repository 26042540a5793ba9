"""What else in a kernel decides about packets beside nf_tables: that nothing of it is there.

Looked at, in this process's network namespace: rules of the iptables family in their own tables, programs and filters
at devices (XDP, and the queueing disciplines ``ingress`` and ``clsact``), devices that belong to a bridge or another
one, transforms of IPsec, IPVS, and connections that helpers expect. A kernel does not tell all: see docs/proof.md.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from pathlib import Path

from netpolicy.proof.netlink import DUMP, NETLINK_ROUTE, NETLINK_XFRM, Netlink, attributes, text

_PROC = Path("/proc/net")
_LEGACY = ("ip_tables_names", "ip6_tables_names", "arp_tables_names")
# linux/rtnetlink.h, if_link.h, xfrm.h
_GET_LINK, _GET_QDISC, _GET_STATE, _GET_POLICY = 18, 38, 0x12, 0x15
_IFINFO, _TCMSG = struct.Struct("=BBHiII"), struct.Struct("=BBHiIII")
_NAME, _MASTER, _XDP, _XDP_ATTACHED, _KIND = 3, 10, 43, 2, 1
_NO_XFRM = {"state": bytes(224), "policy": bytes(64)}
_EARLY = {"ingress", "clsact"}
_MOST = 1 << 16


def surroundings() -> Iterator[str]:
    """Yield what decides about packets beside the rules of nf_tables, in words.

    Raises:
        OSError, MalformedError: The kernel does not tell.

    """
    for name in _LEGACY:
        for table in _lines(name):
            yield f"a table of the iptables family: {table} ({name.removesuffix('_tables_names')}tables)"
    if any(line.startswith(("TCP", "UDP", "FWM")) for line in _lines("ip_vs")):
        yield "virtual servers of IPVS"
    if _lines("nf_conntrack_expect"):
        yield "connections that connection tracking expects"
    yield from _devices()
    yield from _transforms()


def _lines(name: str) -> list[str]:
    """Return the lines of a file that a kernel without the feature has not."""
    try:
        with (_PROC / name).open(encoding="utf-8", errors="replace") as file:
            return [line.strip() for line in file.read(_MOST).splitlines() if line.strip()]
    except FileNotFoundError:
        return []


def _devices() -> Iterator[str]:
    names: dict[int, str] = {}
    with Netlink(NETLINK_ROUTE) as kernel:
        for _, body in kernel.ask(_GET_LINK, DUMP, bytes(_IFINFO.size)):
            index, parts = _IFINFO.unpack_from(body)[3], dict(attributes(body[_IFINFO.size :]))
            names[index] = text(parts[_NAME])
            if dict(attributes(parts.get(_XDP, b""))).get(_XDP_ATTACHED, b"\0") != b"\0":
                yield f"an XDP program at {names[index]}"
            if _MASTER in parts:
                yield f"{names[index]} belongs to another device"
        for _, body in kernel.ask(_GET_QDISC, DUMP, bytes(_TCMSG.size)):
            index, parts = _TCMSG.unpack_from(body)[3], dict(attributes(body[_TCMSG.size :]))
            if text(parts[_KIND]) in _EARLY:
                yield f"a queueing discipline {text(parts[_KIND])} at {names.get(index, index)}"


def _transforms() -> Iterator[str]:
    try:
        with Netlink(NETLINK_XFRM) as kernel:
            for kind, asked in (("state", _GET_STATE), ("policy", _GET_POLICY)):
                if any(True for _ in list(kernel.ask(asked, DUMP, _NO_XFRM[kind]))):
                    yield f"an IPsec {kind}"
    except OSError as refused:
        if refused.errno != errno.EPROTONOSUPPORT:  # this kernel has no IPsec
            raise
