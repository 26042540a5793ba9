"""Kernel settings of a firewall, written one by one: the first that is refused ends it."""

from __future__ import annotations

from appliance_image.agent.errors import AgentError
from netpolicy.proof.settings import SETTINGS, SettingError, read, settings

FORWARDING = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")


def write(text: str, *, at_least: bool = False) -> int:
    """Write all settings of a file into this thread's network namespace, read each back, and return how many.

    Args:
        text: The file's.
        at_least: Whether more than was asked for is as good: the kernel rounds some numbers up.

    Raises:
        AgentError: The kernel has no such setting, or does not take the value.

    """
    count = 0
    try:
        told = list(settings(text))
    except SettingError as wrong:
        raise AgentError("kernel", str(wrong)) from wrong
    for key, value in told:
        try:
            (SETTINGS / key).write_text(value, encoding="ascii")
            found = read(key)
        except OSError as refused:
            raise AgentError("kernel", f"the kernel refuses {key} = {value}: {refused}") from refused
        if found != value and not (at_least and int(found) >= int(value)):
            raise AgentError("kernel", f"the kernel has {key} = {found} when told {value}")
        count += 1
    return count


def stop_forwarding() -> None:
    """Forward nothing any more.

    Raises:
        AgentError: The kernel refuses.

    """
    write("".join(f"{key} = 0\n" for key in FORWARDING))


def forwards() -> bool:
    """Tell whether this kernel forwards anything."""
    return any(read(key) != "0" for key in FORWARDING)
