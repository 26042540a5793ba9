"""From a topology file to a topology, or to everything that is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from netpolicy.diagnostics import Diagnostic, InputError
from netpolicy.topology.addressing import check_addressing
from netpolicy.topology.assemble import assemble
from netpolicy.topology.draft import POLICY, Draft, read_draft
from netpolicy.topology.ends_check import check_ends
from netpolicy.topology.findings import Findings
from netpolicy.topology.model import Topology
from netpolicy.topology.policy import check_policy
from netpolicy.topology.references import check_names, check_use
from netpolicy.topology.structure import check_structure


@dataclass(frozen=True, slots=True)
class Loaded:
    """A topology without errors."""

    topology: Topology
    warnings: tuple[Diagnostic, ...]
    """By place."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What can be said of a topology, errors or not."""

    topology: Topology | None
    """What is right in it; None if what there is (sites, segments, nodes, firewalls) is wrong."""
    errors: tuple[Diagnostic, ...]
    warnings: tuple[Diagnostic, ...]


def load_topology(path: Path, *, as_of: date | None = None) -> Loaded:
    """Read a topology and the tables it names.

    Args:
        path: The YAML file; tables are looked for beside it.
        as_of: The day to judge on, instead of the one in the file.

    Raises:
        InputError: The input is refused; holds every error found.

    """
    found = examine(path, as_of=as_of)
    if found.errors or found.topology is None:
        raise InputError(found.errors)
    return Loaded(found.topology, found.warnings)


def examine(path: Path, *, as_of: date | None = None, content: bytes | None = None) -> Examined:
    """Read a topology as far as it can be understood (see :func:`load_topology`).

    Flows, services and invariants that are wrong are left out of the topology: a later stage can judge the rest.
    With `content`, that is what the file says, and `path` only where it stands.
    """
    try:
        return _examined(path, as_of, content)
    except InputError as refused:
        return Examined(None, refused.diagnostics, ())


def _examined(path: Path, as_of: date | None, content: bytes | None) -> Examined:
    findings = Findings()
    draft = read_draft(path, findings, content)
    if as_of is not None and draft.network is not None:
        network = draft.network
        draft.network = replace(network, spec=network.spec.model_copy(update={"as_of": as_of}))
    _check_network(draft, findings)
    wrong = check_policy(draft, findings)
    topology = None
    if draft.sound:
        topology = assemble(draft, wrong)
        check_ends(topology, findings)
    if not findings.error_count:
        check_use(draft, findings)
    return Examined(topology, findings.errors, findings.warnings)


def _check_network(draft: Draft, findings: Findings) -> None:
    before = findings.error_count
    for section, entry in draft.entries():
        if section not in POLICY:
            check_names(draft, section, entry, findings)
    check_addressing(draft, findings)
    check_structure(draft, findings)
    draft.sound = draft.sound and findings.error_count == before
