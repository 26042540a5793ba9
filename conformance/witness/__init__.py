"""Whether the proof's model of a ruleset is the kernel's: packets at the edges of all its classes, asked of both."""

from conformance.witness.run import STAGE, run_witnesses

__all__ = ["STAGE", "run_witnesses"]
