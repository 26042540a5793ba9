"""What Suricata says of a configuration: its own check, in IPS mode and with every doubt an error; and its reading."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from netpolicy.environment import ENVIRONMENT
from netpolicy.rooted.root import Mount, Root, RootError

_SECONDS = 120.0
_COMPLAINT = re.compile(r"^(?:E|W|Error|Warning): (.*)", re.MULTILINE)
_LOADED = re.compile(r"(\d+) rules successfully loaded, (\d+) rules failed, (\d+) rules skipped")
_SETTING = re.compile(r"^([A-Za-z0-9_.\-/:]+) = (.*)$")
# The same rules and the same answers; tables for Hyperscan take twice the time, and nothing is matched.
_QUICK = ("--set", "mpm-algo=ac", "--set", "spm-algo=bm")


@dataclass(frozen=True, slots=True)
class EngineSaid:
    """About the configuration of one engine."""

    complaints: tuple[str, ...]
    """Nothing if it would start."""
    loaded: int
    """Signatures that it has loaded."""


def dry_run(root: Root, configuration: Path, interface: str, *, rules: str | None = None) -> list[str]:
    """Return what the engine of an interface says against its configuration; nothing if it would start.

    Args:
        root: Which engine.
        configuration: ``suricata/`` of a firewall's build.
        interface: Of that firewall, with an engine.
        rules: A file beside the configuration that is loaded instead of all others, without thresholds.

    """
    return list(engine_says(root, configuration, interface, rules=rules).complaints)


def engine_says(root: Root, configuration: Path, interface: str, *, rules: str | None = None) -> EngineSaid:
    """Return what ``suricata -T`` says; see :func:`dry_run`."""
    with tempfile.TemporaryDirectory(prefix="netpolicy-") as log:
        argv = [
            *("/usr/bin/suricata", "-T", "-v", "--simulate-ips", "--init-errors-fatal", *_QUICK),
            *_files(interface),
            *(("-S", f"/etc/suricata/{rules}", "--set", "threshold-file=/dev/null") if rules else ()),
            *("-l", "/var/log/suricata"),
        ]
        done = _run(root, argv, configuration, Mount(Path(log), "/var/log/suricata", writable=True))
    said = done.stdout + done.stderr
    found = _COMPLAINT.findall(said) or ([] if done.returncode == 0 else [said.strip()])
    counted = [tuple(map(int, each)) for each in _LOADED.findall(said)]
    if any(failed or skipped for _, failed, skipped in counted):
        found.append("rules failed or were skipped")
    return EngineSaid(tuple(found), sum(loaded for loaded, _, _ in counted))


def engine_reads(root: Root, configuration: Path, interface: str) -> dict[str, str]:
    """Return the settings of an engine as it reads them (``suricata --dump-config``), by their dotted names.

    Raises:
        RootError: It cannot read them, or reads one twice.

    """
    done = _run(root, ["/usr/bin/suricata", "--dump-config", *_files(interface)], configuration)
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        setting = _SETTING.match(line)
        if setting is None:
            continue
        if setting[1] in found:
            raise RootError(f"the engine reads {setting[1]} twice")
        found[setting[1]] = setting[2]
    if done.returncode != 0 or not found:
        raise RootError(f"the engine does not read its configuration: {(done.stderr or done.stdout).strip()[-500:]}")
    return found


def _files(interface: str) -> tuple[str, ...]:
    return ("-c", "/etc/suricata/suricata.yaml", "--include", f"/etc/suricata/engine-{interface}.yaml")


def _run(root: Root, argv: Sequence[str], configuration: Path, *more: Mount) -> subprocess.CompletedProcess[str]:
    command = root.command(argv, (Mount(configuration, "/etc/suricata"), *more))
    return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False, env=ENVIRONMENT)
