"""The topology that a command is about."""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path

from netpolicy.topology.fields import FIRST_DAY, LAST_DAY

TOPOLOGY = Path("topology.yaml")
"""Unless another one is named."""


def add_topology(parser: argparse.ArgumentParser, also: str = "") -> None:
    """Add the argument ``topology``; `also` is said of it before what it is by default."""
    parser.add_argument(
        "topology", metavar="TOPOLOGY", type=Path, nargs="?", default=TOPOLOGY, help=f"{also}default: {TOPOLOGY}"
    )


def add_sids(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--sids``."""
    parser.add_argument(
        "--sids", metavar="FILE", type=Path, help="the numbers of signatures; default: beside TOPOLOGY, .sids.csv"
    )


def day(text: str) -> date:
    """Return the day that a topology is judged on, for ``--as-of``.

    Raises:
        argparse.ArgumentTypeError: It is none, or none that clocks are compared with.

    """
    try:
        found = date.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or not FIRST_DAY <= found <= LAST_DAY:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a day, YYYY-MM-DD, from {FIRST_DAY} to {LAST_DAY}")
    return found
