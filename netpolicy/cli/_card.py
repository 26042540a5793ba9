"""Options of commands that use an operator's card."""

from __future__ import annotations

import argparse
import functools
import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from appliance_image.signing.card import Card


def add_card(parser: argparse._ActionsContainer, *, required: bool = False) -> None:
    """Add the options."""
    parser.add_argument("--module", metavar="FILE", type=Path, required=required, help="PKCS #11 library of the card")
    parser.add_argument(
        "--token", metavar="NAME", required=required, help="the card's label, or its serial number, at that library"
    )
    parser.add_argument(
        "--pin-file",
        metavar="FILE",
        type=Path,
        help="file of yours (chmod 600) with the PIN; default: ask on the terminal. A PIN is never an argument",
    )
    parser.add_argument(
        "--final-try", action="store_true", help="try the PIN even if the card locks itself should it be wrong"
    )
    parser.add_argument(
        "--pin-counts",
        metavar="DIR",
        type=Path,
        help="where wrong PINs are counted; default: $XDG_STATE_HOME/netpolicy/pin, ~/.local/state/netpolicy/pin",
    )


def card(args: argparse.Namespace) -> Card:
    """Return the card that the options name."""
    from appliance_image.signing.attempts import default_directory
    from appliance_image.signing.card import Card
    from appliance_image.signing.secret import read_pin

    # Asked for once, however often the card is used.
    @functools.cache
    def pin(token: str) -> str:
        if args.pin_file is not None:
            return read_pin(args.pin_file)
        if not sys.stdin.isatty():
            raise OSError("there is no terminal to ask for the PIN on: use --pin-file")
        return getpass.getpass(f"PIN of token '{token}': ")

    return Card(args.module, args.token, pin, args.pin_counts or default_directory(), args.final_try)
