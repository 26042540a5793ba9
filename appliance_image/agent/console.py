"""What the appliance says of its boot, on the console and in the log: one line a stage, for people and programs."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time

from appliance_image.agent.root import Root

LINE = re.compile(r"netpolicy: (?P<stage>[a-z-]+): (?P<outcome>ok|closed): (?P<text>.*) t=(?P<seconds>[0-9.]+)$")
"""How a line reads; `seconds` are those since power-on, as the kernel counts them."""


def say(root: Root, stage: str, text: str, *, closed: bool = False) -> str:
    """Tell how a stage has ended, and return the line. A console that is not there is no reason to stop."""
    seconds = time.clock_gettime(time.CLOCK_BOOTTIME)
    line = f"netpolicy: {stage}: {'closed' if closed else 'ok'}: {' '.join(text.split())} t={seconds:.1f}"
    print(line, file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):
        descriptor = os.open(root.console, os.O_WRONLY | os.O_NOCTTY | os.O_APPEND | os.O_NONBLOCK)
        try:
            os.write(descriptor, f"{line}\r\n".encode())
        finally:
            os.close(descriptor)
    return line
