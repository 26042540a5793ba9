"""Run by :mod:`netpolicy.proof.frames` in a process of its own, as :mod:`netpolicy.proof.lister` is."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":  # started apart from whatever else is installed
    sys.path.insert(0, str(Path(__file__).parents[2]))

from netpolicy.proof.lister import CLONE_NEWNET, bound, load, run
from netpolicy.proof.netlink import DUMP, NETLINK_NETFILTER, Netlink, attributes, text

# linux/netfilter.h and linux/netfilter/nf_tables.h. nft 1.0.6 leaves devices out of its JSON, and comments can make
# its text say anything.
_NETDEV = 5
_GET_CHAIN = 10 << 8 | 4
_TABLE, _NAME, _HOOK = 1, 3, 4
_DEVICE, _DEVICES, _DEVICE_NAME = 3, 4, 1


def main() -> int:
    """Read groups as JSON, load each, and write what the kernel then holds.

    A group is names and texts of files, and devices; or null for what is there. A chain at the ingress of a device
    needs that device: those of a group are made first, in a network namespace that is gone with the process.
    """
    try:
        import nftables  # noqa: PLC0415 - its absence is an answer
    except ImportError:
        lacking = f"{sys.executable} has no module 'nftables'"
        remedy = "install Debian's python3-nftables, and use Debian's Python: 'python3 -m venv --system-site-packages'"
        print(f"{lacking}: {remedy}", file=sys.stderr)
        return 3
    bound()
    groups = json.load(sys.stdin)
    if None not in groups and ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        print(f"no network namespace of its own: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        return 1
    found = []
    for group in groups:
        context = nftables.Nftables()
        if group is not None:
            files, devices = group
            run(context, "flush ruleset")
            for number, device in enumerate(each for each in devices if each not in _devices()):
                peer = ["type", "veth", "peer", "name", f"peer{len(_devices())}-{number}"]
                subprocess.run(["ip", "link", "add", "name", device, *peer], check=True)
            for name, commands in files:
                load(nftables, name, commands)
        for name in ("json", "handle", "stateless", "numeric_prio"):
            getattr(context, f"set_{name}_output")(True)
        found.append({"listing": run(context, "list ruleset netdev"), "devices": _devices(), "chains": list(_chains())})
    json.dump(found, sys.stdout)
    return 0


def _devices() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


def _chains() -> Iterator[tuple[str, str, list[str]]]:
    """Yield table, name and devices of each chain of family netdev, as the kernel itself tells."""
    with Netlink(NETLINK_NETFILTER) as kernel:
        header = struct.pack("!BBH", _NETDEV, 0, 0)
        for _, body in kernel.ask(_GET_CHAIN, DUMP, header):
            fields = dict(attributes(body[len(header) :]))
            hook = dict(attributes(fields.get(_HOOK, b"")))
            named = [value for kind, value in attributes(hook.get(_DEVICES, b"")) if kind == _DEVICE_NAME]
            devices = named or [hook[_DEVICE]] * (_DEVICE in hook)
            yield text(fields[_TABLE]), text(fields[_NAME]), [text(each) for each in devices]


if __name__ == "__main__":
    sys.exit(main())
