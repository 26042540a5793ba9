"""Everything that can be said of a topology without compiling it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from netpolicy.diagnostics import Diagnostic, InputError
from netpolicy.intent.derive import derive_intents
from netpolicy.intent.model import FirewallIntent
from netpolicy.topology.load import examine
from netpolicy.topology.model import Topology


@dataclass(frozen=True, slots=True)
class Checked:
    """A topology that compiles."""

    topology: Topology
    intents: Mapping[str, FirewallIntent]
    """What each firewall must do, by its id."""
    warnings: tuple[Diagnostic, ...]
    """By place."""


def check_topology(path: Path, *, as_of: date | None = None) -> Checked:
    """Read a topology and derive what each firewall must do.

    Args:
        path: The YAML file; tables are looked for beside it.
        as_of: The day to judge on, instead of the one in the file.

    Raises:
        InputError: It does not compile; holds every error of the language, and of paths if there is a network to judge.

    """
    found = examine(path, as_of=as_of)
    errors = list(found.errors)
    if found.topology is None:
        raise InputError(errors)
    try:
        intents = derive_intents(found.topology)
    except InputError as refused:
        raise InputError([*errors, *refused.diagnostics]) from refused
    if errors:
        raise InputError(errors)
    return Checked(found.topology, intents, found.warnings)
