"""What ``systemd-analyze security`` says of a root's services: how much each could do if it were taken over."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from appliance_image.hardening.figures import AuditError, Figure, Mark, Section
from appliance_image.hardening.tools import SEEN
from appliance_image.image.errors import ImageError
from appliance_image.image.workshop import Workshop

LIMIT = 2.0
"""Exposure, from 0 to 10, of each of our units."""
EXCEPTIONS: Mapping[str, tuple[float, str]] = {
    "netpolicy-wire.service": (
        4.1,
        "makes the engines' network namespaces (CAP_SYS_ADMIN) where the service manager sees them: no mount namespace",
    ),
    "netpolicy-rewire.service": (4.1, "does what netpolicy-wire.service does, for a bundle that is applied"),
    "netpolicy-expire.service": (
        2.3,
        "proves what it goes back to in a network namespace of its own (CAP_SYS_ADMIN)",
    ),
    "netpolicy-operate.service": (
        2.7,
        "proves, checks and mounts in namespaces of its own (CAP_SYS_ADMIN), for operators who speak with another unit",
    ),
    "netpolicy-haproxy.service": (
        2.3,
        "begins as root to listen for others' addresses, then nobody in an empty root with CAP_NET_RAW alone",
    ),
    "netpolicy-verify.service": (
        2.2,
        "mounts a configuration medium (CAP_SYS_ADMIN), whose files may be anybody's (CAP_DAC_OVERRIDE)",
    ),
}
"""Units that cannot do their work within the limit: a limit of their own, and why."""
TEST_EXCEPTIONS: Mapping[str, tuple[float, str]] = {
    "netpolicy-test-console.service": (10.0, "a test image's console; no production image has it"),
}
_DIRECTORY = "usr/lib/systemd/system"
_OURS = "netpolicy"
_OVERALL = re.compile(r"Overall exposure level for (?P<unit>\S+): (?P<level>[0-9.]+) ")
_ANY = 100
"""A threshold that nothing is over: what is over a limit is decided here."""


def section(root: Path, shop: Workshop, *, test: bool) -> Section:
    """Return how exposed the services of a root are: ours beside their limits, the system's to be told.

    Args:
        root: Unpacked; the workshop sees it.
        shop: With Debian 13's systemd-analyze.
        test: Whether it is of a test image.

    Raises:
        AuditError: There is none of ours, or systemd-analyze does not know one.

    """
    names = services(root)
    if not any(each.startswith(_OURS) for each in names):
        raise AuditError(f"{root} has no unit of ours in {_DIRECTORY}: it is no root of an appliance")
    excepted = {**EXCEPTIONS, **(TEST_EXCEPTIONS if test else {})}
    ours = (_figure(each, exposure(each, shop), excepted) for each in names if each.startswith(_OURS))
    others = ((each, exposure(each, shop)) for each in names if not each.startswith(_OURS))
    rest = (Figure(name, f"{level:.1f}", Mark.TOLD, reason="Debian's") for name, level in others if level is not None)
    return Section("units", "Exposure of units (systemd-analyze security)", (*ours, *rest))


def services(root: Path) -> list[str]:
    """Return the names of the services that a root has, those masked left out."""
    found = (root / _DIRECTORY).glob("*.service")
    return sorted(each.name for each in found if not each.is_symlink() and each.stat().st_size)


def exposure(unit: str, shop: Workshop) -> float | None:
    """Return how exposed a service is; None of one of others that it cannot tell.

    Raises:
        AuditError: systemd-analyze does not say.

    """
    argv = ("security", "--offline=yes", "--no-pager", f"--threshold={_ANY}", f"--root={SEEN}")
    try:
        said = shop.run("systemd-analyze", *argv, unit, environment={"SYSTEMD_COLORS": "0"}).decode()
    except ImageError as failed:
        if not unit.startswith(_OURS):
            return None
        raise AuditError(f"{unit}: {failed}") from failed
    found = _OVERALL.search(said)
    if found is None:
        if not unit.startswith(_OURS):
            return None
        raise AuditError(f"{unit}: systemd-analyze does not tell its exposure: {said[-500:]}")
    return float(found["level"])


def _figure(unit: str, level: float | None, excepted: Mapping[str, tuple[float, str]]) -> Figure:
    own, reason = excepted.get(unit, (LIMIT, ""))
    if level is None:
        return Figure(unit, "", Mark.UNKNOWN, f"{own}")
    if level <= LIMIT:
        return Figure(unit, f"{level:.1f}", Mark.HOLDS, f"{LIMIT}")
    return Figure(unit, f"{level:.1f}", Mark.EXCEPTED if level <= own else Mark.OVER, f"{own}", reason)
