"""Everything that can be said of a topology without compiling it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

from netpolicy.diagnostics import Diagnostic, InputError, Severity
from netpolicy.intent.routing import Routing
from netpolicy.intent.verify import verify
from netpolicy.topology.load import Loaded, examine
from netpolicy.topology.model import Topology


def check_topology(path: Path, *, as_of: date | None = None, content: bytes | None = None) -> Loaded:
    """Read a topology and see whether its flows can be compiled.

    Args:
        path: The YAML file; tables are looked for beside it.
        as_of: The day to judge on, instead of the one in the file.
        content: Of the file, if it is not to be read.

    Raises:
        InputError: It does not compile; holds every error of the language, and of paths if there is a network to judge.

    """
    found = examine(path, as_of=as_of, content=content)
    errors = list(found.errors)
    if found.topology is None:
        raise InputError(errors)
    try:
        routing = verify(found.topology)
    except InputError as refused:
        raise InputError([*errors, *refused.diagnostics]) from refused
    if errors:
        raise InputError(errors)
    return Loaded(found.topology, (*found.warnings, *_idle(found.topology, routing)))


def _idle(topology: Topology, routing: Routing) -> Iterator[Diagnostic]:
    """Yield a warning for each firewall that is on no way."""
    for firewall in topology.firewalls.values():
        if not any(True for _ in routing.crossings(firewall)):
            yield Diagnostic(
                place=firewall.place,
                severity=Severity.WARNING,
                message=f"firewall '{firewall.id}' passes nothing on: other ways between its segments cost less",
                expected="a standby, which carries nothing until the others' costs are raised; or a lower cost",
            )
