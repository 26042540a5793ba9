"""What can go wrong with a lab."""

from __future__ import annotations


class LabError(Exception):
    """The lab could not be brought up, changed or found; says where and what the kernel or tool answered."""
