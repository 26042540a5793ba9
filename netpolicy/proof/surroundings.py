"""What else in a kernel decides about packets beside nf_tables: that nothing of it is there.

Looked at, in this thread's network namespace: rules of the iptables family in their own tables, programs and filters
at devices (XDP, and the queueing disciplines ``ingress`` and ``clsact``), devices that belong to a bridge or another
one, transforms of IPsec, IPVS, helpers of connection tracking and connections that they expect, and sockets that take
and send whole frames; in this machine, BPF programs. Whether the kernel lists netfilter's hooks is said.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from netpolicy.proof.bpf import programs
from netpolicy.proof.hooks import hooks
from netpolicy.proof.netlink import DUMP, NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_XFRM, Netlink, attributes, text
from netpolicy.proof.read import MissingError

_PROC = Path("/proc/thread-self/net")
_MODULES = Path("/proc/modules")
_HELPERS = frozenset(
    f"nf_conntrack_{each}"
    for each in ("amanda", "broadcast", "ftp", "h323", "irc", "netbios_ns", "pptp", "sane", "sip", "snmp", "tftp")
)
_ASSIGNED = Path("/proc/sys/net/netfilter/nf_conntrack_helper")
"""Of kernels before 6.0: whether helpers are given to connections without a rule."""
# linux/netfilter/nfnetlink.h: expectations, and helpers that are programs.
_EXPECTED, _OWN_HELPERS = 2 << 8 | 1, 9 << 8 | 1
_LEGACY = ("ip_tables_names", "ip6_tables_names", "arp_tables_names")
# linux/rtnetlink.h, if_link.h, xfrm.h
_GET_LINK, _GET_QDISC, _GET_STATE, _GET_POLICY = 18, 38, 0x12, 0x15
_IFINFO, _TCMSG = struct.Struct("=BBHiII"), struct.Struct("=BBHiIII")
_NAME, _MASTER, _XDP, _XDP_ATTACHED, _KIND = 3, 10, 43, 2, 1
_NO_XFRM = {"state": bytes(224), "policy": bytes(64)}
_EARLY = {"ingress", "clsact"}
_MOST = 1 << 16


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What there is beside the rules."""

    found: tuple[str, ...]
    """What decides about packets, or could, in words; nothing is as it should be."""
    unseen: tuple[str, ...]
    """What this kernel has no way to tell, and why that is not needed."""


UNLISTED = (
    "who else is called at netfilter's hooks: this kernel has no list of them (CONFIG_NETFILTER_NETLINK_HOOK); rules, "
    "BPF programs, iptables, IPVS and helpers are asked about by themselves, and one's own module is another kernel"
)


def surroundings() -> Surroundings:
    """Return what decides about packets beside the rules of nf_tables.

    Raises:
        OSError, MalformedError: The kernel does not tell.
        MissingError: It tells root alone.

    """
    try:
        called = hooks(name for _, name in socket.if_nameindex())
        found = (*_beside(), *programs(), *(called or ()))
    except PermissionError as refused:
        raise MissingError(f"finding out what is beside the rules takes root: {refused}") from refused
    return Surroundings(found, () if called is not None else (UNLISTED,))


def _beside() -> Iterator[str]:
    for name in _LEGACY:
        for table in _lines(name):
            yield f"a table of the iptables family: {table} ({name.removesuffix('_tables_names')}tables)"
    if any(line.startswith(("TCP", "UDP", "FWM")) for line in _lines("ip_vs")):
        yield "virtual servers of IPVS"
    yield from _tracking()
    if frames := len(_lines("packet")[1:]):
        yield f"sockets for whole frames, which no rule sees: {frames} (AF_PACKET)"
    yield from _devices()
    yield from _transforms()


def _tracking() -> Iterator[str]:
    if _lines("nf_conntrack_expect") or _any(_EXPECTED):
        yield "connections that connection tracking expects"
    if _any(_OWN_HELPERS):
        yield "a program that helps connection tracking (nfct helper)"
    try:
        loaded = {line.split(" ", 1)[0] for line in _MODULES.read_text(encoding="utf-8").splitlines()}
    except FileNotFoundError:  # this kernel has no modules; helpers that are built in help nobody without a rule
        loaded = set()
    yield from (f"a helper of connection tracking: {each}" for each in sorted(loaded & _HELPERS))
    if _ASSIGNED.exists() and _ASSIGNED.read_text(encoding="ascii").strip() != "0":
        yield "helpers that connections get without a rule (net/netfilter/nf_conntrack_helper)"


def _any(kind: int) -> bool:
    """Tell whether netfilter lists anything of a kind; a kernel that has no such thing does not know the question."""
    try:
        with Netlink(NETLINK_NETFILTER) as kernel:
            return any(True for _ in list(kernel.ask(kind, DUMP, bytes(4))))
    except OSError as refused:
        if refused.errno not in {errno.EINVAL, errno.EOPNOTSUPP}:
            raise
        return False


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
