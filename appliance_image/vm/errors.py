"""What can go wrong with a virtual machine."""

from __future__ import annotations


class MachineError(Exception):
    """A virtual machine cannot be made, or did not do what was waited for; says which and why."""


class ClosedError(MachineError):
    """An appliance has said that it is closed, and why."""
