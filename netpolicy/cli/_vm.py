"""What commands that run the image in a virtual machine share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from netpolicy.topology.model import Topology

if TYPE_CHECKING:
    from appliance_image.vm.boot import Parts
    from appliance_image.vm.console import Event

_MACHINE_LACKS = 3


def operators_of(topology: Topology) -> Path:
    """Return where authorities and keys of the people are whom a test image of a network trusts."""
    return Path.home() / ".cache/netpolicy/trial-operators" / topology.id


def add_places(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where image and operators are."""
    parser.add_argument("--image", metavar="DIR", type=Path, default=Path("image"), help="default: %(default)s")
    parser.add_argument(
        "--operators",
        metavar="DIR",
        type=Path,
        help="trial operators whom the image trusts (default: those of 'netpolicy image build --test')",
    )


def lacking(topology: Topology) -> int | None:
    """Say what the machine lacks to run a lab with a virtual machine in it; None if nothing."""
    from appliance_image.vm.machine import lacking as machines
    from conformance.lab.preflight import CLIENTS, missing, unneeded

    absent = [str(each) for each in missing() if each.needed_for not in {CLIENTS} | unneeded(topology)]
    absent += machines()
    for each in absent:
        print(f"netpolicy: this machine lacks {each}", file=sys.stderr)
    return _MACHINE_LACKS if absent else None


def parts_of(args: argparse.Namespace, topology: Topology, work: Path, hear: Callable[[Event], None] | None) -> Parts:
    """Return what a trial needs, of the options of :func:`add_places`.

    Raises:
        MachineError: There is no image, or nobody whom it trusts.

    """
    from appliance_image.vm.boot import Parts
    from appliance_image.vm.errors import MachineError
    from appliance_image.vm.image import Image
    from appliance_image.vm.operators import TrialOperators

    operators = TrialOperators(args.operators or operators_of(topology))
    absent = [each for each in topology.managers if not (operators.trust.directory / f"{each}.pem").is_file()]
    if absent:
        wanted = "netpolicy image build --test --topology TOPOLOGY"
        raise MachineError(f"{operators.directory} has no trial operators of '{absent[0]}': {wanted}")
    return Parts(Image.read(args.image), operators, work, hear or (lambda _event: None))
