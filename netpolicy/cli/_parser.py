"""A parser that says what was probably meant."""

from __future__ import annotations

import argparse
from difflib import get_close_matches
from typing import Any


class Parser(argparse.ArgumentParser):
    """Of a command and, since parsers of actions have the class of the one above, of all its actions."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # argparse does so by itself from Python 3.14 on (suggest_on_error).
        if action.choices is None or value in action.choices:
            return
        valid = [str(each) for each in action.choices]
        near = get_close_matches(str(value), valid, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(valid)}"
        raise argparse.ArgumentError(action, f"there is no '{value}'; {hint}")
