"""``netpolicy schema``: the JSON Schema of the language."""

from __future__ import annotations

import argparse

from netpolicy.topology.json_schema import schema_text


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "schema",
        help="print the JSON Schema of topology files",
        description="Print a JSON Schema (2020-12) of topology files, for editors that complete and check YAML.",
    )
    parser.set_defaults(run=run)


def run(_args: argparse.Namespace) -> int:
    """Run the command."""
    print(schema_text(), end="")
    return 0
