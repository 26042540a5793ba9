"""The build tree: what ``netpolicy compile`` writes, whole or not at all."""

from netpolicy.build.compile import compile_topology
from netpolicy.build.tree import BuildError

__all__ = ["BuildError", "compile_topology"]
