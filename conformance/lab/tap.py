"""A tap device: the network card of something outside of the lab, whose cable ends in it."""

from __future__ import annotations

import fcntl
import os
import struct

_TUN = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_TUN_EXCL = 0x0002, 0x1000, 0x8000
QUEUE = 8192
"""Frames that wait to be taken; what comes beyond is lost, and counted."""


def make_tap(device: str) -> int:
    """Make a tap device in the calling thread's network namespace, and return the descriptor that it lives by.

    Frames cross it whole, with their checksums: it has no virtio header, by which cards agree to leave them out.

    Raises:
        OSError: The kernel has no such devices, or the name is taken.

    """
    descriptor = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        request = struct.pack("16sH22x", device.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_TUN_EXCL)
        fcntl.ioctl(descriptor, _TUNSETIFF, request)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
