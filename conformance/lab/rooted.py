"""The root that the inline engine and the relay run from, for labs."""

from __future__ import annotations

from pathlib import Path

from conformance.lab.errors import LabError
from netpolicy.build import NEWEST, compile_topology
from netpolicy.rooted import Mount, Root, RootError
from netpolicy.topology.model import Topology

__all__ = ["Mount", "Root", "compile_for"]


def compile_for(root: Root | None, topology: Topology, out: Path) -> None:
    """Compile a topology for the inline engine of a root.

    Raises:
        LabError: There are no rules for it.
        InputError: The topology does not compile.

    """
    try:
        suricata = NEWEST if root is None else root.suricata
    except RootError as unknown:
        raise LabError(str(unknown)) from unknown
    compile_topology(topology, out, suricata)
