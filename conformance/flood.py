"""A bounded flood of one frame: ``python -m conformance.flood DEVICE FRAME_HEX PACKETS SECONDS``.

It stops when its standard input ends, when it has sent so many packets, or after so many seconds, and then prints how
many it has sent.  It is a process of its own because it would starve every other thread of this one.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
import time

_BURST = 256


def main(argv: list[str]) -> int:
    """Send until told to stop."""
    device, frame_hex, packets, seconds = argv
    frame = bytes.fromhex(frame_hex)
    deadline = time.monotonic() + float(seconds)
    remaining = int(packets)
    sent = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((device, 0))
        while remaining > 0 and time.monotonic() < deadline and not _told_to_stop():
            for _ in range(min(_BURST, remaining)):
                try:
                    sender.send(frame)
                except OSError as error:
                    if error.errno != errno.ENOBUFS:  # the queue is full; the packet was not sent
                        raise
                else:
                    sent += 1
            remaining -= _BURST
    print(sent)
    return 0


def _told_to_stop() -> bool:
    readable, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
