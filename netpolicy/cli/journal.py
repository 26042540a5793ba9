"""``netpolicy journal``: usage records (使用記録)."""

from __future__ import annotations

import argparse

from appliance_image.journal.command import add_actions, run


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "journal",
        help="usage records (使用記録): verify, show, send and receive them",
        description="Journals of what was done: append-only, each record with the hash of the one before it, sealed by "
        "signed checkpoints.",
    )
    add_actions(parser)
    parser.set_defaults(run=run)
