"""A firewall that runs the image: a machine with its network cards on the taps of a lab."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance_image.vm.console import Event
from appliance_image.vm.errors import ClosedError
from appliance_image.vm.image import Image
from appliance_image.vm.machine import Card, Hardware, Machine
from conformance.lab import Lab
from netpolicy.topology.model import Firewall

ENFORCING = "forward"
"""The last stage of a boot."""
BOOT_SECONDS = 120.0
"""Within which it must have come, on hardware; emulated, several times that."""


def cards(firewall: Firewall, lab: Lab | None = None) -> tuple[Card, ...]:
    """Return the network cards of a firewall: on the taps of a lab where it is elsewhere, or else leading nowhere."""
    return tuple(
        Card(each.name, each.mac, None if lab is None else lab.wiring.taps[firewall.id, each.name])
        for each in firewall.interfaces
    )


@contextmanager
def plugged(
    image: Image,
    firewall: Firewall,
    work: Path,
    *,
    lab: Lab | None = None,
    medium: Path | None = None,
    hear: Callable[[Event], None] = lambda _event: None,
) -> Iterator[Machine]:
    """Give a firewall's machine, which is off, while inside.

    Args:
        image: What it runs.
        firewall: Its network cards.
        work: For its files.
        lab: Where its cables lead.
        medium: Its configuration disk.
        hear: Told of every stage.

    Raises:
        MachineError: It cannot be made.

    """
    work.mkdir(parents=True, exist_ok=True)
    variables = image.enrol(work / "enrolled.fd")
    hardware = Hardware(image.disk, variables, cards(firewall, lab), medium)
    with Machine(hardware, work / "machine", hear=hear) as machine:
        yield machine


def await_enforcing(machine: Machine, since: int = 0) -> Event:
    """Wait until a firewall enforces, and return that event.

    Raises:
        ClosedError: It is closed, and says why.
        MachineError: It does not come up in time.

    """
    end = machine.console.await_event(
        lambda event: event.stage == ENFORCING or not event.ok, BOOT_SECONDS * machine.hardware.patience, since
    )
    if not end.ok:
        raise ClosedError(f"it stays closed: {end.stage}: {end.text}")
    return end
