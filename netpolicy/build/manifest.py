"""What a build is: hashes of its files, of its input, and the version of the compiler."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version

from ids_rules.version import Suricata
from netpolicy.topology.model import Topology

MANIFEST = "manifest.json"
FORMAT = 1

APPLY = (
    {"file": "machine.conf", "command": ["sysctl", "-p"]},
    {"file": "sysctl.conf", "command": ["sysctl", "-p"]},
    {"file": "guard.nft", "command": ["nft", "-f"]},
    {"file": "frames.nft", "command": ["nft", "-f"]},
    {"file": "nftables.nft", "command": ["nft", "-f"], "environment": {"TZ": "UTC"}},
    {"file": "ip.batch", "command": ["ip", "-batch"]},
    {"file": "ip6.batch", "command": ["ip", "-6", "-batch"]},
    {"file": "forwarding.conf", "command": ["sysctl", "-p"]},
)
"""How a firewall takes its files, in this order: closed first, forwarding last."""


def emit_manifest(topology: Topology, files: Mapping[str, str], suricata: Suricata) -> str:
    """Return ``manifest.json`` for `files`, which are keyed by their path inside the build tree.

    It holds no time, no host name and no version of what this program stands on, so that equal input gives equal bytes
    on every machine.
    """
    manifest = {
        "format": FORMAT,
        "network": topology.id,
        "as_of": topology.as_of.isoformat(),
        "topology_sha256": topology.digest,
        "tools": {"netpolicy": version("netpolicy")},
        "suricata": suricata.value,
        "apply": APPLY,
        "firewalls": {
            firewall.id: {
                "managed_by": firewall.managed_by,
                "signatures": firewall.signatures,
                "interfaces": {interface.name: interface.mac for interface in firewall.interfaces},
            }
            for firewall in topology.firewalls.values()
        },
        "files_sha256": {path: hashlib.sha256(files[path].encode()).hexdigest() for path in sorted(files)},
    }
    return json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
