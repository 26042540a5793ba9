"""What may decide about packets from elsewhere in the kernel: BPF programs, and who is called at netfilter's hooks."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from netpolicy.proof import bpf
from netpolicy.proof.bpf import programs
from netpolicy.proof.hooks import hooks, unknown
from netpolicy.proof.netlink import MalformedError, attribute

_LOAD = 5
_SOCKET_FILTER, _CLASSIFIER, _XDP = 1, 3, 6
_RETURN_2 = struct.pack("=BBhi", 0xB7, 0, 0, 2) + struct.pack("=BBhi", 0x95, 0, 0, 0)
"""``r0 = 2; exit``."""


@contextmanager
def _loaded(kind: int, name: bytes) -> Iterator[None]:
    """Have a BPF program of some kind, attached to nothing."""
    code, licence = ctypes.create_string_buffer(_RETURN_2), ctypes.create_string_buffer(b"GPL")
    places = (ctypes.addressof(code), ctypes.addressof(licence))
    head = struct.pack("=IIQQIIQII", kind, 2, *places, 0, 0, 0, 0, 0) + name.ljust(16, b"\0")
    descriptor = bpf._bpf(_LOAD, ctypes.create_string_buffer(head, len(head)))
    try:
        yield
    finally:
        os.close(descriptor)


@pytest.mark.skipif(os.geteuid() != 0, reason="BPF programs are loaded as root")
@pytest.mark.parametrize(("kind", "word"), [(_XDP, "xdp"), (_CLASSIFIER, "sched_cls")])
def test_programs(kind: int, word: str) -> None:
    """A program that could pass or change packets is told while it is there; one that can only refuse is not."""
    name = f"np{os.getpid()}".encode()[:15]
    with _loaded(kind, name):
        (told,) = [each for each in programs() if name.decode() in each]
    assert told.startswith(f"a BPF program of type {word}: ")
    assert told.endswith(f" '{name.decode()}' (no link)")
    assert not [each for each in programs() if name.decode() in each]
    with _loaded(_SOCKET_FILTER, name):
        assert not [each for each in programs() if name.decode() in each]


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_programs_that_are_not_told(monkeypatch: pytest.MonkeyPatch, error: str) -> None:
    """A kernel that refuses is no kernel without programs; one without bpf(2) is."""
    import errno

    def refused(*_: object) -> int:
        raise OSError(getattr(errno, error), error)

    monkeypatch.setattr(bpf, "_bpf", refused)
    if error == "ENOSYS":
        assert not list(programs())
    else:
        with pytest.raises(PermissionError):
            list(programs())


def _hook(function: str | None, module: str | None = None, chain: int | None = None) -> bytes:
    told = attribute(1, struct.pack("!I", 2)) + attribute(2, struct.pack("!i", -300))
    told += attribute(4, function.encode() + b"\0") if function else b""
    told += attribute(5, module.encode() + b"\0") if module else b""
    return told + (attribute(6, attribute(2, struct.pack("!I", chain))) if chain else b"")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (_hook("nft_do_chain_inet", "nf_tables", 1), None),
        (_hook("nft_do_chain_inet", "nf_tables"), "nft_do_chain_inet of module nf_tables is called at"),
        (_hook("nf_hook_run_bpf", None, 2), "nf_hook_run_bpf is called at"),
        (_hook("ipv4_conntrack_in", "nf_conntrack"), None),
        (_hook("nf_confirm"), None),
        (_hook("ipv4_conntrack_in", "evil"), "ipv4_conntrack_in of module evil is called at"),
        (_hook("watch", "evil"), "watch of module evil is called at the place, priority -300"),
        (_hook(None), "a function without a name is called at"),
    ],
)
def test_hooks(told: bytes, words: str | None) -> None:
    """Chains of nf_tables and what the model knows are passed over; everybody else at a hook is told."""
    found = unknown(told, "the place")
    assert (found is None) if words is None else words in str(found)


def test_hooks_that_do_not_fit() -> None:
    """What is cut is an error, not a hook that is known."""
    with pytest.raises(MalformedError):
        unknown(_hook("nf_confirm")[:-3], "the place")


@pytest.mark.skipif(os.geteuid() != 0, reason="hooks are listed for root")
def test_hooks_of_this_kernel() -> None:
    """Where the kernel lists hooks, there are some that are not told: all that is known; where not, it says so."""
    assert hooks(()) in (None, [])
