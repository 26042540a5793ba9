"""Cases in the form of suricata-verify: a directory with ``input.pcap`` and ``test.yaml``, and what runs them here.

Beside the cases of a tree, ``etc/`` is the configuration that they run with; suricata-verify takes the same tree.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from scapy.packet import Packet

from conformance.lab.rooted import Mount, Root
from ids_rules.version import Suricata
from tests.ids.transcript import write_pcap

CONFIGURATION = "etc"
_INSIDE = "/var/log/suricata"
_KIND = "alert.metadata.signature[0]"
_SECONDS = 60.0


def write_case(
    directory: Path,
    packets: Iterable[Packet],
    interface: str,
    *,
    raised: str,
    silent: Iterable[str],
    version: Suricata,
) -> None:
    """Write a case.

    Args:
        directory: New, in the tree; its name is that of the case.
        packets: In order.
        interface: Whose engine it is that sees them.
        raised: The kind of signature that they must raise; "" for none.
        silent: The kinds that they must not raise.
        version: The least that the configuration is for.

    """
    directory.mkdir()
    write_pcap(directory / "input.pcap", packets)
    etc = f"${{TEST_DIR}}/../{CONFIGURATION}"
    command = [
        f"${{SRCDIR}}/src/suricata -c {etc}/suricata.yaml --include {etc}/engine-{interface}.yaml",
        f"--set default-rule-path={etc}",
        *(f"--set {name}-file={etc}/{name}.config" for name in ("classification", "threshold")),
        f"--set reference-config-file={etc}/reference.config",
        "--set unix-command.enabled=no --simulate-ips --init-errors-fatal --runmode single",
        "-r ${TEST_DIR}/input.pcap -l ${OUTPUT_DIR}",
    ]
    checks: list[dict[str, Any]] = [
        {"filter": {"count": 0, "match": {"event_type": "alert", _KIND: kind}}} for kind in sorted(silent)
    ]
    if raised:
        # A filter counts exactly; how often is not what is asked.
        said = f'grep -c -m 1 \'"signature":\\["{raised}"\\]\' eve.json'
        checks.insert(0, {"shell": {"args": said, "expect": 1}})
    case = {"requires": {"min-version": f"{version.release}.0"}, "command": " ".join(command), "checks": checks}
    (directory / "test.yaml").write_text(yaml.safe_dump(case, sort_keys=False, width=200), encoding="utf-8")


def run_case(root: Root, directory: Path) -> list[str]:
    """Return which checks of a case fail, after a root's Suricata has run over its capture."""
    case = yaml.safe_load((directory / "test.yaml").read_text(encoding="utf-8"))
    output = directory / "output"
    output.mkdir()
    command = case["command"]
    for name, value in (
        ("${SRCDIR}/src/suricata", "/usr/bin/suricata"),
        ("${TEST_DIR}", f"{_INSIDE}/{directory.name}"),
        ("${OUTPUT_DIR}", f"{_INSIDE}/{directory.name}/output"),
    ):
        command = command.replace(name, value)
    mounts = [Mount(directory.parent, _INSIDE, writable=True)]
    argv = root.command(command.split(), mounts)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with (output / "eve.json").open(encoding="utf-8") as stream:
        events = [json.loads(line) for line in stream]
    return [str(check) for check in case["checks"] if not _holds(check, events, output)]


def _holds(check: dict[str, Any], events: list[dict[str, Any]], output: Path) -> bool:
    if "shell" in check:
        shell = check["shell"]
        argv = ["/bin/sh", "-c", shell["args"]]
        done = subprocess.run(argv, cwd=output, capture_output=True, text=True, timeout=_SECONDS, check=False)
        return done.stdout.strip() == str(shell["expect"])
    wanted = check["filter"]
    count = sum(all(_value(event, path) == value for path, value in wanted["match"].items()) for event in events)
    return bool(count == wanted["count"])


def _value(event: Any, path: str) -> Any:
    """Return what a path such as ``alert.metadata.signature[0]`` leads to, None if nothing."""
    for part in path.removesuffix("[0]").split("."):
        event = event.get(part) if isinstance(event, dict) else None
    return (event[0] if event else None) if path.endswith("[0]") else event
