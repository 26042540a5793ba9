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

_CLONE_NEWNET = 0x40000000
# linux/netlink.h and linux/netfilter/nf_tables.h. nft 1.0.6 leaves devices out of its JSON, and comments can make its
# text say anything.
_NETLINK_NETFILTER, _NETDEV = 12, 5
_GET_CHAIN, _REQUEST, _DUMP = 10 << 8 | 4, 0x1, 0x300
_ERROR, _DONE = 2, 3
_TABLE, _NAME, _HOOK = 1, 3, 4
_DEVICE, _DEVICES, _DEVICE_NAME = 3, 4, 1


def main() -> int:
    """Read groups (files and devices, or null for what is there) as JSON, and write what the kernel then holds.

    A chain at the ingress of a device needs that device: those of a group are made first, in a network namespace that
    is gone with the process.
    """
    try:
        import nftables  # noqa: PLC0415 - its absence is an answer
    except ImportError:
        print("the Debian package python3-nftables is not installed", file=sys.stderr)
        return 3
    groups = json.load(sys.stdin)
    if None not in groups and ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        print(f"no network namespace of its own: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        return 1
    found = []
    for group in groups:
        context = nftables.Nftables()
        if group is not None:
            paths, devices = group
            _run(context, "flush ruleset")
            for number, device in enumerate(each for each in devices if each not in _devices()):
                peer = ["type", "veth", "peer", "name", f"peer{len(_devices())}-{number}"]
                subprocess.run(["ip", "link", "add", "name", device, *peer], check=True)
            for path in paths:
                failed, _, said = nftables.Nftables().cmd_from_file(path)
                if failed:
                    print(said, file=sys.stderr)
                    return 1
        for name in ("json", "handle", "stateless", "numeric_prio"):
            getattr(context, f"set_{name}_output")(True)
        found.append(
            {"listing": _run(context, "list ruleset netdev"), "devices": _devices(), "chains": list(_chains())}
        )
    json.dump(found, sys.stdout)
    return 0


def _devices() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


def _chains() -> Iterator[tuple[str, str, list[str]]]:
    """Yield table, name and devices of each chain of family netdev, as the kernel itself tells."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as asking:
        asking.bind((0, 0))
        asking.send(struct.pack("=IHHIIBBH", 20, _GET_CHAIN, _REQUEST | _DUMP, 1, 0, _NETDEV, 0, 0))
        while True:
            data = asking.recv(1 << 17)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    raise OSError("the kernel does not tell its chains")
                fields = dict(_attributes(data[20:length]))
                hook = dict(_attributes(fields.get(_HOOK, b"")))
                named = [value for kind, value in _attributes(hook.get(_DEVICES, b"")) if kind == _DEVICE_NAME]
                devices = named or [hook[_DEVICE]] * (_DEVICE in hook)
                yield _text(fields[_TABLE]), _text(fields[_NAME]), [_text(each) for each in devices]
                data = data[(length + 3) & ~3 :]


def _attributes(content: bytes) -> Iterator[tuple[int, bytes]]:
    while len(content) >= 4:
        length, kind = struct.unpack_from("=HH", content)
        yield kind & 0x3FFF, content[4:length]
        content = content[(length + 3) & ~3 :]


def _text(content: bytes) -> str:
    return content.rstrip(b"\0").decode()


def _run(context: object, command: str) -> str:
    failed, said, complaint = context.cmd(command)  # type: ignore[attr-defined]
    if failed:
        print(complaint, file=sys.stderr)
        raise SystemExit(1)
    return str(said)


if __name__ == "__main__":
    sys.exit(main())
