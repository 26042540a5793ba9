"""Suricata over a capture, with the rules of a firewall, as inline as a capture can be."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scapy.packet import Packet

from conformance.lab.rooted import Mount, Root
from tests.ids.transcript import write_pcap


@dataclass(frozen=True, slots=True)
class Raised:
    """One alert."""

    kind: str
    blocked: bool


def replay(
    packets: Iterable[Packet], configuration: Path, interface: str, root: Root | None = None, *, drops: bool = False
) -> list[Raised]:
    """Return the alerts that the engine of an interface raises over some packets, in order.

    Args:
        packets: In order.
        configuration: ``suricata/`` of a firewall's build.
        interface: Of the firewall.
        root: Of the engine; the one that :meth:`Root.find` finds by default.
        drops: Whether drops without an alert are told as well, by their reasons.

    """
    events = _events(packets, configuration, interface, root)
    alerts = [
        Raised(event["alert"]["metadata"]["signature"][0], event["alert"]["action"] == "blocked")
        for event in events
        if event["event_type"] == "alert"
    ]
    silent = [Raised(event["drop"]["reason"], blocked=True) for event in events if event["event_type"] == "drop"]
    return [*alerts, *(silent if drops else ())]


def first_drops(packets: Iterable[Packet], configuration: Path, interface: str) -> dict[frozenset[int], int]:
    """Return the number of the first packet, from 1, that is dropped of each connection, by its two ports."""
    found: dict[frozenset[int], int] = {}
    for event in _events(packets, configuration, interface, None):
        if event["event_type"] == "drop":
            ports = frozenset((event["src_port"], event["dest_port"]))
            found[ports] = min(found.get(ports, event["pcap_cnt"]), event["pcap_cnt"])
    return found


def _events(packets: Iterable[Packet], configuration: Path, interface: str, root: Root | None) -> list[dict[str, Any]]:
    root = root or Root.find()
    assert root is not None, "make setup"
    with tempfile.TemporaryDirectory() as directory:
        log, run = Path(directory) / "log", Path(directory) / "run"
        log.mkdir()
        run.mkdir()
        write_pcap(log / "input.pcap", packets)
        mounts = (
            Mount(configuration, "/etc/suricata"),
            Mount(log, "/var/log/suricata", writable=True),
            Mount(run, "/run/suricata", writable=True),
        )
        argv = [
            *("/usr/bin/suricata", "-c", "/etc/suricata/suricata.yaml"),
            *("--include", f"/etc/suricata/engine-{interface}.yaml", "--simulate-ips", "--init-errors-fatal"),
            *("-l", "/var/log/suricata", "-r", "/var/log/suricata/input.pcap", "--runmode", "single"),
        ]
        done = subprocess.run(root.command(argv, mounts), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        with (log / "eve.json").open(encoding="utf-8") as stream:
            return [json.loads(line) for line in stream]
