"""Where things are on the machine that builds."""

from pathlib import Path

PROJECT = Path(__file__).parents[2]
"""The source tree: packages/, requirements.lock and the modules that go into the image."""
CACHE = Path.home() / ".cache/netpolicy"
"""Package files, wheels, and the root of the tools."""
