"""The whole audit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from appliance_image.hardening import baseline, files, kernel, live, ports, units, vulnerabilities
from appliance_image.hardening.baseline import Found, Kind, read_baseline
from appliance_image.hardening.figures import Audit, AuditError, Figure, Mark, Section
from appliance_image.hardening.subject import Subject, subject
from appliance_image.image.errors import ImageError
from appliance_image.image.packages import Lock, read_lock

_UNKNOWN = {
    Kind.CMDLINE: "a root alone has no command line (--cmdline FILE)",
    Kind.CONFIG: "the root has no configuration of its kernel (--kernel-config FILE)",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be audited, and with what beside it."""

    given: Path
    """An image, or an unpacked root."""
    build: Path | None = None
    """What ``compile`` has made."""
    firewalls: tuple[str, ...] = ()
    """Of that; all if none is named."""
    report: Path | None = None
    """What a running appliance has told."""
    feed: Path | None = None
    """The security tracker's file."""
    packages: Path | None = None
    """A lock file, where the image has none of its own."""
    command_line: Path | None = None
    configuration: Path | None = None
    """The kernel's."""


def audit(wish: Wish) -> Audit:
    """Find out every figure.

    Raises:
        AuditError: Something that was given is not what it should be.
        LackingError: This machine lacks something.

    """
    firewalls = _firewalls(wish)
    report = None if wish.report is None else live.read_report(wish.report)
    lines = read_baseline()
    with subject(wish.given) as found:
        lock = found.lock if wish.packages is None else _lock(wish.packages)
        sections = (
            units.section(found.root, found.shop, test=found.test),
            files.section(found.root, test=found.test),
            _ports(firewalls),
            live.section(report),
            _kernel(wish, found, lines, [each for _, each in firewalls], report),
            vulnerabilities.section(lock, wish.feed, found.built),
        )
        return Audit(found.name, sections)


def _firewalls(wish: Wish) -> list[tuple[str, Path]]:
    if wish.build is None:
        if wish.firewalls:
            raise AuditError("--firewall names one of a build: give --build")
        return []
    known = sorted(each.parent.name for each in wish.build.glob("*/nftables.nft"))
    if not known:
        raise AuditError(f"{wish.build} is not a build: it has no firewall")
    for name in wish.firewalls:
        if name not in known:
            raise AuditError(f"{wish.build} has no firewall {name}; it has {', '.join(known)}")
    return [(name, wish.build / name) for name in wish.firewalls or known]


def _ports(firewalls: list[tuple[str, Path]]) -> Section:
    if firewalls:
        return ports.section(firewalls)
    figure = Figure("open ports", "", Mark.UNKNOWN, "none", "no rules given (--build DIR, what compile has made)")
    return Section("ports", "Open on each interface, by the rules", (figure,))


def _kernel(
    wish: Wish,
    found: Subject,
    lines: list[baseline.Line],
    firewalls: Iterable[Path],
    report: live.Report | None,
) -> Section:
    command_line = found.command_line if wish.command_line is None else _text(wish.command_line)
    configuration = found.configuration if wish.configuration is None else _text(wish.configuration)
    settings = kernel.sysctls(found.root, firewalls)
    if report is not None:
        command_line = report["command_line"]
        settings.update(report["settings"])
    known = Found(
        sysctl=settings,
        cmdline=None if command_line is None else kernel.command_line(command_line),
        config=None if configuration is None else kernel.configuration(configuration),
    )
    return baseline.section(known, lines, _UNKNOWN)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as wrong:
        raise AuditError(f"{path} cannot be read: {wrong}") from wrong


def _lock(path: Path) -> Lock:
    try:
        return read_lock(path)
    except (ImageError, OSError) as wrong:
        raise AuditError(str(wrong)) from wrong
