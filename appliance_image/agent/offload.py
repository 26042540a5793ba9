"""What network cards do on their own is switched off where an engine reads frames: it must see what is on the wire."""

from __future__ import annotations

import array
import errno
import fcntl
import socket
import struct
from collections.abc import Iterable

from appliance_image.agent.errors import AgentError

_SIOCETHTOOL = 0x8946
_OFF = {
    # linux/ethtool.h: the command that sets, the one that gets, and what it is about.
    "segments of TCP": (0x1F, 0x1E),
    "segments in software": (0x24, 0x23),
    "frames joined on arrival": (0x2C, 0x2B),
    "scattered frames": (0x19, 0x18),
    "checksums on sending": (0x17, 0x16),
    "checksums on arrival": (0x15, 0x14),
}
_MUST = ("segments of TCP", "segments in software", "frames joined on arrival", "checksums on sending")
"""The others some hardware cannot switch off, and harm nothing: a frame's checksum is there all the same."""


def switch_off(devices: Iterable[str]) -> None:
    """Have full, single frames with checksums on some devices of this thread's network namespace.

    Raises:
        AgentError: One of them goes on joining or cutting frames.

    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        for device in devices:
            for name, (setting, getting) in _OFF.items():
                try:
                    _ethtool(handle, device, setting, 0)
                except OSError as refused:
                    if refused.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:
                        raise AgentError("offload", f"{device} keeps {name}: {refused}") from refused
                if name in _MUST and _value(handle, device, getting):
                    raise AgentError("offload", f"{device} does not switch off {name}")


def _value(handle: socket.socket, device: str, command: int) -> int:
    try:
        return _ethtool(handle, device, command, 0)
    except OSError:
        return 0


def _ethtool(handle: socket.socket, device: str, command: int, value: int) -> int:
    block = array.array("I", [command, value])
    address, _ = block.buffer_info()
    fcntl.ioctl(handle, _SIOCETHTOOL, struct.pack("16sP16x", device.encode(), address))
    return block[1]
