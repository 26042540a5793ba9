"""An image on trial that does not come to enforce gives way: the boot loader counts boots, this begins them."""

from __future__ import annotations

from appliance_image.agent import services
from appliance_image.agent.console import say
from appliance_image.agent.errors import AgentError
from appliance_image.agent.records import record
from appliance_image.agent.root import Root
from appliance_image.agent.update import Disk, may_give_way


def give_way(root: Root, disk: Disk | None = None) -> bool:
    """Start the machine again if the image that runs is on trial, has not enforced, and another one was found healthy.

    The state is not looked at: whatever keeps it closed, the other image enforced its bundle. Without another one the
    machine stays as it is, closed, and waits for its medium.

    Raises:
        AgentError: Which images there are cannot be found out, or the service manager does not take the request.

    """
    if (root.run / "begun").exists() or not may_give_way(root, disk):
        return False
    try:
        record(root, "image-update", outcome="gives-way", reason="it has not come to enforce")
    except AgentError as unrecorded:
        say(root, "image", f"not recorded: {unrecorded}", closed=True)
    say(root, "image", "this image has not come to enforce: starting again, the one before takes over", closed=True)
    services.reboot(root)
    return True
