"""The build tree: what ``netpolicy compile`` writes, whole or not at all."""

from ids_rules.version import NEWEST, Suricata
from netpolicy.build.compile import compile_files, compile_topology, write_build
from netpolicy.build.tree import BuildError

__all__ = ["NEWEST", "BuildError", "Suricata", "compile_files", "compile_topology", "write_build"]
