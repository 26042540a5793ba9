"""While nothing was verified: the boot is tried again whenever a block device or a network card has come."""

from __future__ import annotations

import time
from pathlib import Path

from appliance_image.agent.programs import attempt, run
from appliance_image.agent.root import Root

_PLACES = (Path("/sys/class/block"), Path("/sys/class/net"))
_COUNTED = Path("/sys/firmware/efi/efivars/LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f")
"""What the boot loader leaves when it counts (systemd, Boot Loader Interface)."""
_BLESS = "systemd-bless-boot.service"
_POLL, _SETTLE = 0.5, 0.5


def devices() -> frozenset[str]:
    """Return the names of all block devices and network cards."""
    return frozenset(each.name for place in _PLACES if place.is_dir() for each in place.iterdir())


def watch(root: Root) -> None:
    """Start the boot anew when devices have changed, until a bundle was verified.

    Raises:
        AgentError: The service manager does not take the request.

    """
    tried = devices()
    while not (root.run / "loaded.json").exists():
        time.sleep(_POLL)
        found = devices()
        if found <= tried:
            tried = found
            continue
        time.sleep(_SETTLE)  # partitions and cards come one after the other
        tried = devices()
        # It tells itself why it fails, if it does.
        attempt(root, ["systemctl", "start", "netpolicy-verify.service"], seconds=300.0)
        if (root.run / "loaded.json").exists():
            run(root, ["systemctl", "start", "--no-block", "netpolicy.target", *_healthy()])


def _healthy() -> list[str]:
    """Return what finds this image healthy: it failed with the first attempt, and would be for ever on trial."""
    return [_BLESS] if _COUNTED.exists() else []
