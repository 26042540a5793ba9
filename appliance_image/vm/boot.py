"""From power-on to enforcing: one firewall of a lab as a machine, under a flood of what it must not let pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from appliance_image.vm.console import Event
from appliance_image.vm.guest import await_enforcing, plugged
from appliance_image.vm.image import Image
from appliance_image.vm.machine import Machine
from appliance_image.vm.medium import write_medium
from appliance_image.vm.operators import TrialOperators
from appliance_image.vm.trial import Wish, pinned_build, write_bundle
from conformance.elsewhere import PowerOn
from conformance.expect import Expectation
from conformance.lab import Lab
from conformance.lab.scope import Scope
from conformance.pki import Identities
from conformance.probe.deluge import Deluge, Downpour
from conformance.probe.wire import wired
from netpolicy.intent.routing import Routing

_BEFORE, _AFTER = 1.0, 3.0
"""Seconds of flood before power-on, and after it enforces."""
_FLOOD_SECONDS = 240.0
"""No flood begins closer than this to a change of service hours, which would change what is forbidden."""


@dataclass(slots=True)
class Booted:
    """What a boot was like."""

    firewall: str
    accelerator: str = ""
    events: list[Event] = field(default_factory=list)
    before: Downpour | None = None
    """Of the flood, at power-on; None without one."""
    after: Downpour | None = None
    """Of the flood, seconds after it enforces."""
    opened: float | None = None
    """Seconds from power-on to the first permitted connection that came through; None if it was not looked for."""

    @property
    def closed_while_flooded(self) -> bool:
        """Whether every interface took frames, no forbidden one came out, and a permitted connection came through."""
        if self.before is None or self.after is None:
            return False
        took = all(count.taken > 0 for count in self.after.taken_when_opened.values())
        return took and not self.after.passed and self.after.opened is not None


@dataclass(frozen=True, slots=True)
class Parts:
    """What a trial needs beside the lab."""

    image: Image
    operators: TrialOperators
    """Whom the image trusts."""
    work: Path
    """A directory for files of the machine, which stay."""
    hear: Callable[[Event], None] = lambda _event: None


def write_trial_medium(parts: Parts, lab: Lab, identities: Identities, firewall: str) -> Path:
    """Write the configuration disk of a firewall of a lab, and return where.

    Raises:
        MachineError: It cannot be made.
        Refused: The build was changed after it was compiled.

    """
    topology = lab.topology
    certificates = identities.fingerprints([*topology.nodes.values(), *topology.firewalls.values()])
    build = pinned_build(lab.build, firewall, certificates, parts.work / "build")
    bundle = write_bundle(build, Wish(firewall, authorities=identities.authorities()), parts.operators, parts.work)
    medium = parts.work / "medium"
    write_medium(medium, bundle, identities.of(topology.firewalls[firewall]).directory)
    return medium


def switch_on(
    parts: Parts, report: Booted, *, flood: bool = True, progress: Callable[[str], None] = lambda _line: None
) -> PowerOn:
    """Return what runs a firewall as a machine, for :func:`conformance.elsewhere.conform_elsewhere`.

    Args:
        parts: Image and operators.
        report: Filled in.
        flood: Whether to flood it from before power-on until it enforces.
        progress: Told why nothing happens.

    """

    @contextmanager
    def run(lab: Lab, identities: Identities) -> Iterator[None]:
        firewall = lab.topology.firewalls[report.firewall]
        medium = write_trial_medium(parts, lab, identities, firewall.id)
        with plugged(parts.image, firewall, parts.work, lab=lab, medium=medium, hear=parts.hear) as machine:
            report.accelerator = machine.hardware.accelerator
            if flood:
                _flooded(lab, machine, report, progress)
            else:
                machine.power_on()
                await_enforcing(machine)
            report.events = machine.console.events
            yield

    return run


def _flooded(lab: Lab, machine: Machine, report: Booted, progress: Callable[[str], None]) -> None:
    topology = lab.topology
    firewall = topology.firewalls[report.firewall]
    expectation = Expectation(topology, Routing(topology), datetime.now(UTC))
    expectation.advance(_FLOOD_SECONDS, progress)
    with ExitStack() as stack:
        stack.enter_context(lab.isolated())
        wire = stack.enter_context(wired(lab, firewall, Scope(lab)))
        deluge = stack.enter_context(Deluge(expectation, firewall, wire))
        time.sleep(_BEFORE)
        report.before = deluge.count()
        begun = time.monotonic()
        machine.power_on()
        try:
            await_enforcing(machine)
            time.sleep(_AFTER)
        finally:
            report.events = machine.console.events
            report.after = deluge.count()
            if report.after.opened is not None:
                report.opened = report.after.opened - begun
