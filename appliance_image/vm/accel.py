"""Which way QEMU can run code here: tried by booting the firmware, since /dev/kvm may be there and not work."""

from __future__ import annotations

import contextlib
import selectors
import subprocess
import time
from functools import cache
from pathlib import Path

from appliance_image.vm.firmware import BLANK, CODE

KVM, EMULATION = "kvm", "tcg,thread=multi"

_STARTED = b"BdsDxe"
"""What the firmware says when it looks for something to boot: by then it has run 64-bit code and management mode."""
_SECONDS = 8.0
_PART = 4096


def machine_options(accelerator: str) -> list[str]:
    """Return the options of every machine of ours: chipset, processor, firmware that guards its own memory."""
    return [
        *("-accel", accelerator, "-cpu", "max"),
        *("-machine", "q35,smm=on,hpet=off,vmport=off"),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-global", "driver=cfi.pflash01,property=secure,value=on"),
        *("-global", "ICH9-LPC.disable_s3=1"),
        *("-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={CODE}"),
    ]


@cache
def accelerator() -> str:
    """Return :data:`KVM` if the firmware really boots with it, else :data:`EMULATION`."""
    return KVM if Path("/dev/kvm").exists() and _boots(KVM) else EMULATION


def _boots(accelerator: str) -> bool:
    command = [
        "qemu-system-x86_64",
        *machine_options(accelerator),
        *("-drive", f"if=pflash,format=raw,unit=1,snapshot=on,file={BLANK}"),
        *("-m", "256", "-no-reboot", "-serial", "stdio", "-name", "netpolicy-probe"),
    ]
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except OSError:
        return False
    with process, selectors.DefaultSelector() as selector:
        assert process.stdout is not None  # noqa: S101 - PIPE was asked for
        selector.register(process.stdout, selectors.EVENT_READ)
        said, end = b"", time.monotonic() + _SECONDS
        try:
            while _STARTED not in said and time.monotonic() < end:
                if selector.select(max(0.0, end - time.monotonic())):
                    part = process.stdout.read1(_PART)  # type: ignore[attr-defined]
                    if not part:
                        break
                    said += part
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    return _STARTED in said
