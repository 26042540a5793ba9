"""Suricata's own check of a configuration, in IPS mode and with every doubt an error."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from conformance.lab.rooted import Mount, Root

_SECONDS = 600.0
_COMPLAINT = re.compile(r"^(?:E|W|Error|Warning): (.*)", re.MULTILINE)


def dry_run(root: Root, configuration: Path, interface: str, *, rules: str | None = None) -> list[str]:
    """Return what the engine of an interface says against its configuration; nothing if it would start.

    Args:
        root: Which engine.
        configuration: ``suricata/`` of a firewall's build.
        interface: Of that firewall, with an engine.
        rules: A file beside the configuration that is loaded instead of all others, without thresholds.

    """
    with tempfile.TemporaryDirectory(prefix="netpolicy-") as log:
        mounts = (Mount(configuration, "/etc/suricata"), Mount(Path(log), "/var/log/suricata", writable=True))
        argv = [
            *("/usr/bin/suricata", "-T", "--simulate-ips", "--init-errors-fatal"),
            *("-c", "/etc/suricata/suricata.yaml", "--include", f"/etc/suricata/engine-{interface}.yaml"),
            *(("-S", f"/etc/suricata/{rules}", "--set", "threshold-file=/dev/null") if rules else ()),
            *("-l", "/var/log/suricata"),
        ]
        done = subprocess.run(root.command(argv, mounts), capture_output=True, text=True, timeout=_SECONDS, check=False)
    said = done.stdout + done.stderr
    found = _COMPLAINT.findall(said)
    return found or ([] if done.returncode == 0 else [said.strip()])
