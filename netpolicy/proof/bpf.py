"""BPF programs of this machine that may decide about packets, and where they are attached; asked with bpf(2).

Programs have no namespaces: those of the whole machine are told, wherever they are attached, and whether they are or
not. A kind that is not known here is told as well.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator, Mapping

_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "ppc64le": 361, "s390x": 351}
"""Number of bpf(2)."""
# linux/bpf.h
_NEXT_PROGRAM, _PROGRAM, _INFO, _LINK, _NEXT_LINK = 11, 13, 15, 30, 31
_PROGRAM_INFO, _LINK_INFO = struct.Struct("=II56x16s"), struct.Struct("=III12xI")
_ROOM = 256
_MOST = 1 << 16

_KINDS = {1: "socket_filter", 2: "kprobe", 3: "sched_cls", 4: "sched_act", 5: "tracepoint", 6: "xdp", 7: "perf_event"}
_KINDS |= {8: "cgroup_skb", 9: "cgroup_sock", 10: "lwt_in", 11: "lwt_out", 12: "lwt_xmit", 13: "sock_ops"}
_KINDS |= {14: "sk_skb", 15: "cgroup_device", 16: "sk_msg", 17: "raw_tracepoint", 18: "cgroup_sock_addr"}
_KINDS |= {19: "lwt_seg6local", 20: "lirc_mode2", 21: "sk_reuseport", 22: "flow_dissector", 23: "cgroup_sysctl"}
_KINDS |= {24: "raw_tracepoint_writable", 25: "cgroup_sockopt", 26: "tracing", 27: "struct_ops", 28: "ext", 29: "lsm"}
_KINDS |= {30: "sk_lookup", 31: "syscall", 32: "netfilter"}
_ELSEWHERE = frozenset({
    *("kprobe", "tracepoint", "perf_event", "raw_tracepoint", "tracing", "syscall", "lirc_mode2"),
    *("socket_filter", "cgroup_skb", "cgroup_device", "cgroup_sysctl", "lsm"),
})  # fmt: skip
"""That meet no packet, or can only refuse one, a device or a call; settings are compared for themselves."""
_CGROUP = 3
_BINDING = frozenset({8, 9, 12, 13})
"""Attachments to a control group that say where its processes listen, as systemd's SocketBindDeny; no packet's way."""
_LINKS = {3: "a control group", 5: "a network namespace", 6: "XDP", 9: "operations", 10: "netfilter", 11: "tcx"}
_LINKS |= {13: "netkit", 14: "a map of sockets"}


def programs() -> Iterator[str]:
    """Yield BPF programs that may pass, change or divert packets, in words.

    Raises:
        OSError: The kernel does not tell.

    """
    links: dict[int, list[tuple[str, bool]]] = {}
    try:
        for number in _numbers(_NEXT_LINK):
            program, words, binds = _link(number)
            links.setdefault(program, []).append((words, binds))
        for number in _numbers(_NEXT_PROGRAM):
            yield from _judged(number, links)
    except OSError as refused:
        if refused.errno != errno.ENOSYS:  # then there is none
            raise


def _judged(number: int, links: Mapping[int, list[tuple[str, bool]]]) -> Iterator[str]:
    told = _told(_PROGRAM, number)
    if told is None:
        return
    kind, _, label = _PROGRAM_INFO.unpack_from(told)
    name = _KINDS.get(kind, f"type {kind}")
    places = links.get(number, [])
    if name in _ELSEWHERE or (name == "cgroup_sock_addr" and places and all(binds for _, binds in places)):
        return
    where = ", ".join(dict.fromkeys(words for words, _ in places)) or "no link"
    printable = "".join(each for each in label.partition(b"\0")[0].decode("ascii", "replace") if each.isprintable())
    yield f"a BPF program of type {name}: {number} '{printable}' ({where})"


def _link(number: int) -> tuple[int, str, bool]:
    """Return program and place of a link, and whether it is about nothing but binding."""
    told = _told(_LINK, number)
    if told is None:
        return 0, "", False
    kind, _, program, attached = _LINK_INFO.unpack_from(told)
    return program, _LINKS.get(kind, f"link type {kind}"), kind == _CGROUP and attached in _BINDING


def _numbers(command: int) -> Iterator[int]:
    number = 0
    for _ in range(_MOST):
        asked = ctypes.create_string_buffer(struct.pack("=IIII", number, 0, 0, 0), 16)
        try:
            _bpf(command, asked)
        except OSError as refused:
            if refused.errno == errno.ENOENT:
                return
            raise
        number = struct.unpack_from("=I", asked, 4)[0]
        yield number
    raise OSError(errno.E2BIG, f"more than {_MOST} BPF programs or links")


def _told(command: int, number: int) -> bytes | None:
    """Return what the kernel says of a program or link; None if it is gone."""
    try:
        descriptor = _bpf(command, ctypes.create_string_buffer(struct.pack("=III", number, 0, 0), 12))
    except OSError as refused:
        if refused.errno == errno.ENOENT:
            return None
        raise
    try:
        answer = ctypes.create_string_buffer(_ROOM)
        asked = struct.pack("=IIQ", descriptor, _ROOM, ctypes.addressof(answer))
        _bpf(_INFO, ctypes.create_string_buffer(asked, 16))
        return answer.raw
    finally:
        os.close(descriptor)


def _bpf(command: int, attribute: ctypes.Array[ctypes.c_char]) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOTSUP, f"the number of bpf(2) on {platform.machine()} is not known")
    done = int(libc.syscall(number, command, attribute, len(attribute)))
    if done < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"bpf(2): {os.strerror(code)}")
    return done
