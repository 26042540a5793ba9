"""Who is called at netfilter's hooks of this network namespace, beside the chains of nf_tables: nobody unknown.

Asked over nfnetlink (``NFNL_SUBSYS_HOOK``), which not every kernel has (``CONFIG_NETFILTER_NETLINK_HOOK``).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable

from netpolicy.proof.netlink import DUMP, NETLINK_NETFILTER, Netlink, attribute, attributes, number, text

# linux/netfilter/nfnetlink_hook.h
_GET_HOOK = 12 << 8
_HOOK, _PRIORITY, _DEVICE, _FUNCTION, _MODULE, _CHAIN = 1, 2, 3, 4, 5, 6
_KIND, _NF_TABLES = 2, 1
_FAMILIES = {2: ("ip", 5), 10: ("ip6", 5), 3: ("arp", 3), 7: ("bridge", 6)}
"""With the number of their hooks."""
_NETDEV, _DEVICE_HOOKS = 5, 2
_NO_SUCH = {errno.EOPNOTSUPP, errno.EPROTONOSUPPORT}
"""This kernel has no hooks of a family, or none at a device's egress."""
_KNOWN = frozenset({
    *("ipv4_conntrack_in", "ipv4_conntrack_local", "ipv6_conntrack_in", "ipv6_conntrack_local"),
    *("nf_confirm", "ipv4_confirm", "ipv6_confirm", "ipv4_conntrack_defrag", "ipv6_defrag"),
    # Of security modules: they label a packet, or refuse it.
    *("apparmor_ip_postroute", "selinux_ip_forward", "selinux_ip_output", "selinux_ip_postroute", "smack_ip_output"),
})  # fmt: skip
"""What the model of a kernel knows (net/netfilter/nf_conntrack_proto.c, nf_defrag_ipv4.c, nf_defrag_ipv6_hooks.c)."""

_OWNERS = {"nf_conntrack", "nf_defrag_ipv4", "nf_defrag_ipv6"}


def hooks(devices: Iterable[str]) -> list[str] | None:
    """Return those that are not known, in words; None if this kernel has no list of them.

    Args:
        devices: All of this network namespace, which have hooks of their own.

    Raises:
        MalformedError, OSError: The kernel does not tell.

    """
    asked = [(family, name, hook, "") for family, (name, hooks) in _FAMILIES.items() for hook in range(hooks)]
    asked += [(_NETDEV, "netdev", hook, device) for device in devices for hook in range(_DEVICE_HOOKS)]
    found: list[str] = []
    with Netlink(NETLINK_NETFILTER) as kernel:
        for family, name, hook, device in asked:
            where = attribute(_DEVICE, device.encode() + b"\0") if device else b""
            content = struct.pack("!BBH", family, 0, 0) + attribute(_HOOK, struct.pack("!I", hook)) + where
            try:
                answers = [body for _, body in kernel.ask(_GET_HOOK, DUMP, content)]
            except OSError as refused:
                if refused.errno == errno.EINVAL and (family, hook) == (2, 0):
                    return None
                if refused.errno not in _NO_SUCH:
                    raise
                continue
            place = " ".join(filter(None, (f"hook {hook} of family {name}", f"at {device}" * bool(device))))
            found += filter(None, (unknown(body[4:], place) for body in answers))
    return found


def unknown(content: bytes, place: str) -> str | None:
    """Return one hook in words, if it is none that is known.

    Args:
        content: What the kernel tells of it.
        place: Where it is.

    Raises:
        MalformedError: It does not fit into itself.

    """
    parts = dict(attributes(content))
    if number(dict(attributes(parts.get(_CHAIN, b""))).get(_KIND, b"")) == _NF_TABLES:
        return None
    function = text(parts[_FUNCTION]) if _FUNCTION in parts else "a function without a name"
    module = text(parts[_MODULE]) if _MODULE in parts else None
    if function in _KNOWN and module in {None, *_OWNERS}:  # none: built in
        return None
    priority = int.from_bytes(parts.get(_PRIORITY, b""), "big", signed=True)
    return f"{function}{f' of module {module}' * bool(module)} is called at {place}, priority {priority}"
