"""Why an image is not built."""

from __future__ import annotations


class ImageError(Exception):
    """What was asked for is wrong, or would give an image that must not be."""


class LackingError(ImageError):
    """Something is lacking here: rights, a tool, a package."""
