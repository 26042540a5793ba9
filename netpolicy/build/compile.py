"""From a topology to a build tree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ids_rules import emit_ids
from ids_rules.lock import SidLock
from ids_rules.version import NEWEST, Suricata
from netpolicy.build.manifest import MANIFEST, emit_manifest
from netpolicy.build.tree import replace_tree
from netpolicy.host.kernel import emit_forwarding, emit_sysctl
from netpolicy.host.machine import MACHINE, emit_machine
from netpolicy.host.management import emit_management
from netpolicy.host.network import emit_network, emit_network6
from netpolicy.intent.derive import derive_intents
from netpolicy.intent.model import FirewallIntent
from netpolicy.nftables.frames import emit_frames
from netpolicy.nftables.guard import emit_guard
from netpolicy.nftables.ruleset import emit_ruleset
from netpolicy.relay import emit_relay
from netpolicy.topology.model import Topology


def compile_topology(topology: Topology, out: Path, suricata: Suricata = NEWEST) -> None:
    """Compile a topology to `out` with numbers of signatures of its own; see :func:`compile_files`."""
    write_build(out, compile_files(topology, SidLock(), suricata))


def compile_files(topology: Topology, lock: SidLock, suricata: Suricata = NEWEST) -> dict[str, str]:
    """Return the artefacts of every firewall and the manifest, by path. The same arguments give the same bytes.

    Args:
        topology: What to compile.
        lock: The numbers that signatures have had so far; new ones are added to it.
        suricata: What inline engines run.

    Raises:
        InputError: Flows do not fit the network (see :func:`netpolicy.intent.derive.derive_intents`).

    """
    files: dict[str, str] = {}
    for intent in derive_intents(topology).values():
        for name, content in firewall_files(intent).items():
            files[f"{intent.id}/{name}"] = content
        for name, content in emit_ids(intent, lock, topology.as_of, suricata).items():
            files[f"{intent.id}/suricata/{name}"] = content
        for name, content in emit_relay(intent).items():
            files[f"{intent.id}/relay/{name}"] = content
        for name, content in emit_management(intent).items():
            files[f"{intent.id}/{name}"] = content
    files[MANIFEST] = emit_manifest(topology, files, suricata)
    return files


def write_build(out: Path, files: Mapping[str, str]) -> None:
    """Replace `out` as a whole; when anything fails, what it was before stays as it is.

    Raises:
        BuildError: `out` is not a build tree, so it is not replaced.
        OSError: `out` cannot be written.

    """
    replace_tree(out, files)


def firewall_files(intent: FirewallIntent) -> dict[str, str]:
    """Return the files of one firewall by name, in the order in which they are applied."""
    return {
        MACHINE: emit_machine(intent),
        "sysctl.conf": emit_sysctl(intent),
        "guard.nft": emit_guard(),
        "frames.nft": emit_frames(intent),
        "nftables.nft": emit_ruleset(intent),
        "ip.batch": emit_network(intent),
        "ip6.batch": emit_network6(intent),
        "forwarding.conf": emit_forwarding(intent),
    }
