"""Frozen probes are what scapy would have written."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scapy.layers.inet6 import in6_chksum
from scapy.layers.l2 import Ether
from scapy.utils import checksum

from conformance.probe.shape import Shape, exists, number_of, oddity, template
from netpolicy.reasons import DenyReason

_MACS = bytes.fromhex("020000000001020000000002")
_ENDS = {4: ("10.13.1.74", "10.240.2.10"), 6: ("fd6a:756b:6900:1312::10", "fd6a:756b:6900:f002::10")}
_ALL = [(shape, family) for shape in Shape for family in (4, 6) if exists(shape, family)]


@pytest.mark.parametrize(("shape", "family"), _ALL)
def test_patched_frames_are_well_formed(shape: Shape, family: int) -> None:
    """A patched frame has the lengths and checksums that scapy computes, and its number at the end."""
    source, destination = (ip_address(each) for each in _ENDS[family])
    frame = template(shape, family).frame(0xCAFE0001, _MACS, source, destination, source_port=40000, port=17000)
    assert number_of(frame) == 0xCAFE0001
    parsed = Ether(frame)
    assert (parsed.payload.src, parsed.payload.dst) == (str(source), str(destination))
    if oddity(shape, family) in {DenyReason.FRAGMENT, DenyReason.EXTENSION_HEADER}:
        return  # refused before anything reads the transport part
    if oddity(shape, family) is DenyReason.ICMP_ERROR:
        # scapy takes the number for an extension (RFC 4884) when it rebuilds it
        covered = checksum(frame[34:]) if family == 4 else in6_chksum(58, parsed.payload, frame[54:])
        assert covered == 0
        return
    again = Ether(frame)
    for layer in (again.payload, again.payload.payload):
        for name in ("chksum", "cksum", "len", "plen"):
            layer.fields.pop(name, None)
    assert bytes(again) == frame


def test_other_frames_have_no_number() -> None:
    """What is no probe is not taken for one."""
    assert number_of(b"short") is None
    assert number_of(bytes(60)) is None
