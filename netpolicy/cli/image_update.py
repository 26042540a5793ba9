"""``netpolicy image-update``: a command of the appliance; see :mod:`appliance_image.agent.commands`."""

from __future__ import annotations

import argparse

from appliance_image.agent.commands import add_command


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    add_command(subparsers, "image-update")
