"""A booted image, saved before it knew which firewall it is: each firewall goes on from there in seconds.

The guest was saved with neither network cards nor a configuration disk, closed as it must be then.  Restored, it is
given the cards of one firewall and its disk while it runs, as one would plug them into an appliance that waits for
them, and its agent boots that firewall's bundle.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance_image.vm.console import Event
from appliance_image.vm.errors import MachineError
from appliance_image.vm.guest import BOOT_SECONDS
from appliance_image.vm.image import Image
from appliance_image.vm.machine import Card, Hardware, Machine

_KEPT = ("disk.qcow2", "variables.fd", "tpm")
_SETTLE = 3.0
"""Seconds until the agent watches for devices, once it has said that it is closed."""
_CLOCK_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Saved:
    """A guest that was saved."""

    image: Image
    directory: Path
    seconds: float
    """From power-on until it was closed for want of everything."""

    @property
    def memory(self) -> Path:
        """The guest's memory and devices."""
        return self.directory / "memory"

    def hardware(self) -> Hardware:
        """Return what the guest was made of."""
        return Hardware(self.image.disk, self.image.enrol(self.directory / "enrolled.fd"), hotplug=True)


def save(image: Image, directory: Path, hear: Callable[[Event], None] = lambda _event: None) -> Saved:
    """Boot an image without cards and disk, and save it in a new directory when it has said that it is closed.

    Raises:
        MachineError: It does not boot, or is no test image: only that one has a console to put its clock right.

    """
    if not image.test:
        raise MachineError(f"{image.directory} is no test image")
    directory.mkdir(parents=True)
    found = Saved(image, directory, 0.0)
    with Machine(found.hardware(), directory / "machine", hear=hear) as machine:
        machine.power_on()
        closed = machine.console.await_event(
            lambda event: event.stage == "verify", BOOT_SECONDS * machine.hardware.patience
        )
        if closed.ok:
            raise MachineError(f"a machine without cards and disk is not closed: {closed.text}")
        time.sleep(_SETTLE * machine.hardware.patience)
        machine.save(found.memory)
    return Saved(image, directory, closed.seconds)


@contextmanager
def restored(
    saved: Saved,
    work: Path,
    cards: Iterable[Card],
    medium: Path,
    *,
    hear: Callable[[Event], None] = lambda _event: None,
) -> Iterator[Machine]:
    """Give a saved guest that runs, with a firewall's cards and disk just plugged in, while inside.

    Args:
        saved: Where it goes on; it can be restored any number of times, also at the same time.
        work: A new directory for what it changes.
        cards: At most seven.
        medium: The configuration disk.
        hear: Told of every stage from now on.

    Raises:
        MachineError: QEMU cannot restore it.

    """
    place = work / "machine"
    place.mkdir(parents=True)
    for name in _KEPT:
        source = saved.directory / "machine" / name
        if source.is_dir():
            shutil.copytree(source, place / name)
        else:
            shutil.copyfile(source, place / name)
    with Machine(saved.hardware(), place, incoming=saved.memory, hear=hear) as machine:
        machine.power_on()
        _set_clock(machine)
        ports = iter(range(8))
        for card in cards:
            machine.plug_card(next(ports), card)
        machine.plug_disk(next(ports), medium)
        yield machine


def _set_clock(machine: Machine) -> None:
    """Put the guest's clock right: by it, no time has gone by since it was saved."""
    seconds = int(time.time())
    since = len(machine.console.lines)
    machine.type(f"\nbusybox date -u -s @{seconds} && echo clock-$((6*7))-set\n")
    machine.console.await_line("clock-42-set", _CLOCK_SECONDS * machine.hardware.patience, since)
