"""Where tables are printed: what comes from a file or the network is never taken for markup or the name of an emoji."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console(wide: int) -> Console:
    """Return standard output.

    Args:
        wide: Columns where it is no terminal, so that a pipe gets the same lines on every machine.

    """
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else wide)
