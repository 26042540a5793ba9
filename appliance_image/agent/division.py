"""Engines on processors of their own, and the kernel's share of the work on the others (netpolicy.processors)."""

from __future__ import annotations

from collections.abc import Sequence

from appliance_image.agent import services
from appliance_image.agent.errors import AgentError
from appliance_image.agent.root import Root
from netpolicy.processors import Processors, steer


def divide(root: Root, engines: Sequence[str], processors: Processors) -> None:
    """Have engines begun from now on run on their processors, and the kernel take over what they hand on.

    Args:
        root: Where units are changed.
        engines: The interfaces that have one.
        processors: How to divide; with a single one there is nothing to.

    Raises:
        AgentError: The kernel or the service manager refuses.

    """
    if not engines or processors.inspecting == processors.routing:
        return
    place = root.units / "netpolicy-engine@.service.d"
    numbers = " ".join(str(each) for each in sorted(processors.inspecting))
    try:
        steer(engines, processors.routing)
        place.mkdir(parents=True, exist_ok=True)
        (place / "processors.conf").write_text(f"[Service]\nCPUAffinity={numbers}\n", encoding="ascii")
    except OSError as refused:
        raise AgentError("wire", f"processors cannot be divided: {refused}") from refused
    services.read_units(root)
