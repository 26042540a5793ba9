"""The record of a proof: what was proven, about which files, with which tools; and whether it is still about them."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from netpolicy.build.compared import Tree, read_tree
from netpolicy.inputs import read_document
from netpolicy.proof.prove import Proof
from netpolicy.topology.model import Topology

FORMAT = 1
_MAX_BYTES = 1 << 26


def document(proof: Proof, topology: Topology, tree: Tree) -> dict[str, Any]:
    """Return a record as JSON takes it; times are in seconds. `tree` is what was proven."""
    return {
        "format": FORMAT,
        "network": topology.id,
        "holds": proof.holds,
        "topology_sha256": topology.digest,
        "as_of": topology.as_of.isoformat(),
        "build_sha256": build_hashes(tree),
        "tools": {name: version(name) for name in ("netpolicy", "oxidd")} | {"kernel": platform.release()},
        "unasked": proof.unasked,
        "judged": list(proof.judged),
        "not_looked_at": list(proof.unseen),
        "firewalls": proof.firewalls,
        "rules": proof.rules,
        "elements": proof.elements,
        "seconds": round(proof.seconds, 3),
        "theorems": [
            {
                "id": theorem.id,
                "title": theorem.title,
                "about": theorem.about,
                "holds": theorem.holds,
                "seconds": round(theorem.seconds, 3),
                "findings": [asdict(finding) for finding in theorem.findings],
            }
            for theorem in proof.theorems
        ],
    }


def build_hashes(tree: Tree) -> dict[str, str]:
    """Return the SHA-256 of every file of a build, by path."""
    return {path: hashlib.sha256(content).hexdigest() for path, content in sorted(tree.files.items())}


def differences(record: Path, topology: Topology, build: Path) -> Iterator[str]:
    """Yield in what a topology and a build are not those that a record is about, or why it proves nothing.

    Raises:
        OSError: A file cannot be read.
        ValueError: The record is none.

    """
    try:
        held = read_document(record, _MAX_BYTES)
    except ValueError as wrong:
        raise ValueError(f"{record}: not a record of a proof: {wrong}") from wrong
    if not isinstance(held, dict) or held.get("format") != FORMAT or not isinstance(held.get("build_sha256"), dict):
        raise ValueError(f"{record}: not a record of a proof of format {FORMAT}")
    if held.get("holds") is not True:
        yield "the record is of a proof that did not hold"
    if held.get("topology_sha256") != topology.digest:
        yield "the topology is not the one of the record"
    if held.get("as_of") != topology.as_of.isoformat():
        yield f"the policy was judged as of {held.get('as_of')}, not {topology.as_of}"
    tree = read_tree(build)
    yield from map(str, tree.irregular)
    before, now = held["build_sha256"], build_hashes(tree)
    for path in sorted({*before, *now}):
        if path not in now:
            yield f"{path} is missing"
        elif path not in before:
            yield f"{path} was not there"
        elif before[path] != now[path]:
            yield f"{path} has changed"
