"""What a running appliance reports of itself, beside what it should be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from appliance_image.hardening.figures import AuditError, Figure, Mark, Section
from netpolicy.inputs import read_document

Report = Mapping[str, Any]
"""``sockets``, ``settings``, ``command_line`` and ``lockdown``, as appliance_image.agent.exposure tells them."""

_MOST = 1 << 24
_RAW = frozenset({"raw", "raw6", "packet"})
_TITLE = "A running appliance"


def read_report(path: Path) -> Report:
    """Read what ``netpolicy status --json`` printed on an appliance.

    Raises:
        AuditError: It has no account of sockets and settings.

    """
    try:
        found = read_document(path, _MOST)
        report: Report = found["exposure"]
        for each in report["sockets"]:
            ip_address(each["address"]) if each["kind"] not in _RAW else None
            int(each["port"])
            str(each["namespace"]), str(each["program"])
        dict(report["settings"])
        str(report["command_line"]), str(report["lockdown"])
    except (OSError, ValueError, KeyError, TypeError) as wrong:
        raise AuditError(f"{path} is not the report of an appliance's status: {wrong!r}") from wrong
    return report


def section(report: Report | None) -> Section:
    """Return what listens on a running appliance, and what its kernel has locked."""
    if report is None:
        figure = Figure("sockets", "", Mark.UNKNOWN, "none", "no report given (--report FILE, netpolicy status --json)")
        return Section("live", _TITLE, (figure,))
    return Section("live", _TITLE, (*_sockets(report["sockets"]), *_locks(report)))


def _sockets(sockets: list[Mapping[str, Any]]) -> Iterator[Figure]:
    outside = [each for each in sockets if each["kind"] not in _RAW and not ip_address(each["address"]).is_loopback]
    yield Figure(
        "sockets open to the network", str(len(outside)), Mark.OVER if outside else Mark.HOLDS, "0",
        ", ".join(map(_told, outside)),
    )  # fmt: skip
    # Frames are read by engines alone, each in the namespace of its wire.
    raw = [each for each in sockets if each["kind"] in _RAW and not each["namespace"]]
    yield Figure(
        "raw and packet sockets outside engines' namespaces", str(len(raw)), Mark.OVER if raw else Mark.HOLDS, "0",
        ", ".join(map(_told, raw)),
    )  # fmt: skip
    for each in sockets:
        if each not in outside and each not in raw:
            yield Figure(_told(each), each["namespace"] or "loopback", Mark.TOLD)


def _told(socket: Mapping[str, Any]) -> str:
    return f"{socket['kind']} {socket['address']} {socket['port']} ({socket['program'] or 'unknown'})"


def _locks(report: Report) -> Iterator[Figure]:
    for name, value, wanted in (
        ("lockdown", report["lockdown"], "confidentiality"),
        ("modules can be loaded", "no" if report["settings"].get("kernel/modules_disabled") == "1" else "yes", "no"),
    ):
        yield Figure(name, value, Mark.HOLDS if value == wanted else Mark.OVER, wanted)
