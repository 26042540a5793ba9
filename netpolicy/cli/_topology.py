"""The topology that a command is about."""

from __future__ import annotations

import argparse
from pathlib import Path

TOPOLOGY = Path("topology.yaml")
"""Unless another one is named."""


def add_topology(parser: argparse.ArgumentParser) -> None:
    """Add the argument ``topology``."""
    parser.add_argument(
        "topology", metavar="TOPOLOGY", type=Path, nargs="?", default=TOPOLOGY, help=f"default: {TOPOLOGY}"
    )
