"""Kernel settings of a firewall, written one by one: the first that is refused ends it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from appliance_image.agent.errors import AgentError

_SETTINGS = Path("/proc/sys")
FORWARDING = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")


def settings(text: str) -> Iterator[tuple[str, str]]:
    """Yield keys and values of a file as :mod:`netpolicy.host.kernel` writes them: keys with '/'.

    Raises:
        AgentError: A line is none, or its key leads elsewhere.

    """
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        key, equals, value = (part.strip() for part in stripped.partition("="))
        if not equals or not key or not value or key.startswith("/") or ".." in key.split("/"):
            raise AgentError("kernel", f"no kernel setting: {line}")
        yield key, value


def write(text: str, *, at_least: bool = False) -> int:
    """Write all settings of a file into this thread's network namespace, read each back, and return how many.

    Args:
        text: The file's.
        at_least: Whether more than was asked for is as good: the kernel rounds some numbers up.

    Raises:
        AgentError: The kernel has no such setting, or does not take the value.

    """
    count = 0
    for key, value in settings(text):
        try:
            (_SETTINGS / key).write_text(value, encoding="ascii")
            found = read(key)
        except OSError as refused:
            raise AgentError("kernel", f"the kernel refuses {key} = {value}: {refused}") from refused
        if found != value and not (at_least and int(found) >= int(value)):
            raise AgentError("kernel", f"the kernel has {key} = {found} when told {value}")
        count += 1
    return count


def read(key: str) -> str:
    """Return the value of a setting.

    Raises:
        OSError: There is none.

    """
    return " ".join((_SETTINGS / key).read_text(encoding="ascii").split())


def differences(wanted: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield key, wanted and present value of every setting that is not so."""
    for key, value in wanted.items():
        try:
            found = read(key)
        except OSError:
            found = "missing"
        if found != value:
            yield key, value, found


def stop_forwarding() -> None:
    """Forward nothing any more.

    Raises:
        AgentError: The kernel refuses.

    """
    write("".join(f"{key} = 0\n" for key in FORWARDING))


def forwards() -> bool:
    """Tell whether this kernel forwards anything."""
    return any(read(key) != "0" for key in FORWARDING)
