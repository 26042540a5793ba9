"""What the inline engines let through: nothing but mutually authenticated TLS, whatever the endpoints tolerate."""

from conformance.inspection.run import STAGE, run_inspection

__all__ = ["STAGE", "run_inspection"]
