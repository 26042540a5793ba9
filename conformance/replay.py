"""Signatures of forbidden protocols over captures that nobody made for them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.lab.errors import LabError
from conformance.lab.rooted import Mount, Root
from netpolicy.environment import ENVIRONMENT

MAX_FILES = 10_000
MAX_BYTES = 1 << 30
_SUFFIXES = frozenset({".pcap", ".pcapng", ".cap"})
_SECONDS = 600.0
_KIND = "protocol-"
_TRANSPORTS = ("-tcp", "-udp")
_ERROR = re.compile(r"^(?:E|Error): (?:[a-z-]+: )?(.+?)\.?$", re.MULTILINE)
_HOPELESS = "failed to initialize"
"""What the engine says when it cannot read a capture; it then waits a minute, busily, for the thread that should."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one protocol came to in one capture; or the one row of a capture without any, or that was not read."""

    capture: str
    """The file, relative to the folder."""
    protocol: str | None
    """None if nothing was recognised, nor expected."""
    port: int | None
    """The server's; None if it was not seen."""
    expected: bool
    """The file's name says that it holds this protocol."""
    seen: int
    """Alerts."""
    failed: str | None = None
    """Why the engine could not read the capture."""


def replay_folder(root: Root, configuration: Path, interface: str, folder: Path) -> Iterator[Row]:
    """Yield what the engine recognises in every capture of a folder, file by file; each has a row, whatever it is.

    Args:
        root: Which engine.
        configuration: ``suricata/`` of a firewall's build.
        interface: Of that firewall, with an engine.
        folder: Searched with everything below it.

    Raises:
        LabError: There is no capture, or there are too many.

    """
    captures = sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES and path.is_file())
    if not 0 < len(captures) <= MAX_FILES:
        kinds = ", ".join(sorted(_SUFFIXES))
        raise LabError(f"{folder} holds {len(captures)} captures ({kinds}); expected 1 to {MAX_FILES}")
    protocols = _kinds(configuration)
    for capture in captures:
        name = str(capture.relative_to(folder))
        try:
            rows = list(_rows(name, protocols, _events(root, configuration, interface, capture)))
        except (LabError, OSError, ValueError) as failed:
            rows = [Row(name, None, None, expected=False, seen=0, failed=str(failed))]
        yield from rows or [Row(name, None, None, expected=False, seen=0)]


def _kinds(configuration: Path) -> frozenset[str]:
    """Return the protocols that there are signatures for."""
    rules = (configuration / "netpolicy.rules").read_text(encoding="utf-8")
    return frozenset(_plain(kind) for kind in re.findall(rf"signature {_KIND}([a-z0-9-]+)", rules))


def _rows(name: str, kinds: frozenset[str], events: Iterator[dict[str, Any]]) -> Iterator[Row]:
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    expected = {kind for kind in kinds if kind in words}
    seen: dict[tuple[str, int], int] = {}
    for event in events:
        if event["event_type"] != "alert":
            continue
        for kind in event["alert"].get("metadata", {}).get("signature", []):
            if kind.startswith(_KIND):
                key = (_plain(kind.removeprefix(_KIND)), event.get("flow", event).get("dest_port", 0))
                seen[key] = seen.get(key, 0) + 1
    for (protocol, port), count in sorted(seen.items()):
        yield Row(name, protocol, port, protocol in expected, count)
    for protocol in sorted(expected - {protocol for protocol, _ in seen}):
        yield Row(name, protocol, None, True, 0)


def _plain(kind: str) -> str:
    """Return a protocol's name without its transport."""
    return next((kind.removesuffix(each) for each in _TRANSPORTS if kind.endswith(each)), kind)


def _events(root: Root, configuration: Path, interface: str, capture: Path) -> Iterator[dict[str, Any]]:
    if capture.stat().st_size > MAX_BYTES:
        raise LabError(f"it is larger than {MAX_BYTES} bytes")
    with tempfile.TemporaryDirectory() as directory:
        log, run = Path(directory) / "log", Path(directory) / "run"
        log.mkdir()
        run.mkdir()
        shutil.copyfile(capture, log / "input")
        mounts = (
            Mount(configuration, "/etc/suricata"),
            Mount(log, "/var/log/suricata", writable=True),
            Mount(run, "/run/suricata", writable=True),
        )
        argv = [
            *("/usr/bin/suricata", "-c", "/etc/suricata/suricata.yaml"),
            *("--include", f"/etc/suricata/engine-{interface}.yaml", "--simulate-ips", "--init-errors-fatal"),
            # Captures are often taken before a network card fills in checksums.
            *("-k", "none", "-l", "/var/log/suricata", "-r", "/var/log/suricata/input", "--runmode", "single"),
        ]
        status, said = _run(root.command(argv, mounts))
        if status != 0:
            raise LabError(f"the engine cannot read it: {_reason(status, said)}")
        with (log / "eve.json").open(encoding="utf-8") as stream:
            yield from map(json.loads, stream)


def _reason(status: int, said: str) -> str:
    """Return why an engine has failed: its first error, or else how it ended."""
    errors = _ERROR.findall(said)
    if errors:
        return str(errors[0])
    return f"exit code {status}" if status > 0 else f"signal {-status}, after {_SECONDS:.0f} s or by itself"


def _run(argv: list[str]) -> tuple[int, str]:
    """Return the exit status of an engine that is ended as soon as it is hopeless, and what it said."""
    said = []
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT) as engine:
        timer = threading.Timer(_SECONDS, engine.kill)
        timer.start()
        try:
            for line in engine.stdout or ():
                said.append(line)
                if _HOPELESS in line:
                    engine.kill()
            return engine.wait(), "".join(said)
        finally:
            timer.cancel()
