"""Units of the service manager that the agent starts and ends."""

from __future__ import annotations

import time
from collections.abc import Sequence

from appliance_image.agent.errors import AgentError
from appliance_image.agent.programs import attempt, run
from appliance_image.agent.root import Root

RELAY = "netpolicy-haproxy.service"
FORWARD = "netpolicy-forward.service"
REWIRE = "netpolicy-rewire.service"
EXPIRY = "netpolicy-expire.service"
REVIVAL = "netpolicy-revive.service"
MANAGEMENT = "netpolicy-management.service"
MANAGEMENT_FILE = "management.json"
"""Of a bundle whose firewall has that unit."""
_SHOWN = ("ActiveState", "InvocationID", "Result", "ExecMainStatus")
_FORWARD_SECONDS = 60.0
_POLL = 0.1


def engine(interface: str) -> str:
    """Return the unit of the engine of an interface.

    Its name is taken as it is: interfaces of a topology have only letters, digits, '-', '_' and '.'.
    """
    return f"netpolicy-engine@{interface}.service"


def start(root: Root, units: Sequence[str]) -> None:
    """Start units and do not wait.

    Raises:
        AgentError: The service manager does not take the request.

    """
    if units:
        run(root, ["systemctl", "start", "--no-block", *units])


def run_once(root: Root, unit: str) -> None:
    """Start a unit that ends by itself, and wait until it has.

    Raises:
        AgentError: It failed.

    """
    run(root, ["systemctl", "start", unit])


def restart(root: Root, units: Sequence[str]) -> None:
    """Start units anew and do not wait.

    Raises:
        AgentError: The service manager does not take the request.

    """
    if units:
        run(root, ["systemctl", "restart", "--no-block", *units])


def stop(root: Root, units: Sequence[str]) -> None:
    """End units and wait until they have.

    Raises:
        AgentError: One does not end.

    """
    if units:
        run(root, ["systemctl", "stop", *units])


def reload(root: Root, unit: str) -> None:
    """Have a unit read its files anew, and wait until it has.

    Raises:
        AgentError: It does not.

    """
    run(root, ["systemctl", "reload", unit])


def reboot(root: Root) -> None:
    """Have the machine start again; this process is ended soon.

    Raises:
        AgentError: The service manager does not take the request.

    """
    run(root, ["systemctl", "reboot", "--no-block", "--no-ask-password"])


def read_units(root: Root) -> None:
    """Have the service manager read its units again.

    Raises:
        AgentError: It does not.

    """
    run(root, ["systemctl", "daemon-reload"])


def said(root: Root, unit: str) -> str:
    """Return what a unit has last said of itself (sd_notify(3), STATUS)."""
    return attempt(root, ["systemctl", "show", "--property=StatusText", "--value", unit]).stdout.strip()


def state(root: Root, unit: str) -> str:
    """Return ``active``, ``activating``, ``inactive``, ``failed`` or the like."""
    return attempt(root, ["systemctl", "is-active", unit]).stdout.strip() or "unknown"


def shown(root: Root, unit: str) -> dict[str, str]:
    """Return state, run and last end of a unit (org.freedesktop.systemd1(5)), by property.

    Raises:
        AgentError: The service manager does not tell.

    """
    said = run(root, ["systemctl", "show", f"--property={','.join(_SHOWN)}", unit])
    found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    if set(found) != set(_SHOWN):
        raise AgentError("program", f"systemctl does not tell how {unit} is: {said[-500:]}")
    return found


def begin_forwarding(root: Root) -> None:
    """Go through the last stage of the boot, and wait until it has ended.

    Raises:
        AgentError: It failed.

    """
    start(root, [FORWARD])
    end = time.monotonic() + _FORWARD_SECONDS
    while (found := state(root, FORWARD)) != "active":
        if found == "failed" or time.monotonic() > end:
            raise AgentError("forward", "forwarding does not begin: its unit failed")
        time.sleep(_POLL)


def revive_soon(root: Root) -> None:
    """Have what has ended begun again by a unit of its own, as each end has it."""
    attempt(root, ["systemctl", "restart", "--no-block", REVIVAL])


def expire_later(root: Root) -> None:
    """Have the end of a trial awaited by a unit of its own, whatever becomes of this process.

    Raises:
        AgentError: The service manager does not take the request.

    """
    restart(root, [EXPIRY])


def expire_never(root: Root) -> None:
    """Take :func:`expire_later` back."""
    attempt(root, ["systemctl", "stop", EXPIRY])
