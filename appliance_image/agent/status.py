"""What this appliance runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from appliance_image.agent import daemons, ended, kernel, services
from appliance_image.agent.ended import Ended
from appliance_image.agent.errors import AgentError
from appliance_image.agent.identity import identify
from appliance_image.agent.loaded import recall
from appliance_image.agent.records import Kept, kept
from appliance_image.agent.root import Root
from appliance_image.agent.state import Pointer, State
from appliance_image.agent.update import image_version
from appliance_image.agent.validity import Validity, current_validity

_MIB = 1 << 20
_RUN = frozenset({"active", "reloading"})
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Status:
    """It, at one moment."""

    firewall: str
    network: str
    managed_by: str
    signatures: int
    """How many different operators must sign."""
    runs: Pointer | None
    """The bundle that was verified and runs, confirmed or not."""
    current: Pointer | None
    """The one that was confirmed."""
    previous: Pointer | None
    on_trial: Pointer | None
    seconds_left: float | None
    highest_serial: int
    forwards: bool
    engines: dict[str, str]
    """State of each interface's."""
    relay: str | None
    """State; None if the bundle has none."""
    ended: dict[str, Ended]
    """Which of them have ended since somebody changed something, by unit."""
    image: str
    """Version of the image that runs."""
    boot: str
    """The kernel's name for this start (``/proc/sys/kernel/random/boot_id``)."""
    validity: Validity | None
    """Of its own certificate and lists; None if it has none."""
    journal: Kept | None
    """None if there is none, or it cannot be looked at."""

    @property
    def enforcing(self) -> bool:
        """Whether a bundle is enforced, and all that it permits can pass."""
        every = [*self.engines.values(), *([] if self.relay is None else [self.relay])]
        return self.forwards and self.runs is not None and all(each in _RUN for each in every)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield it for people."""
        yield "firewall", f"{self.firewall} of {self.network}"
        yield "managed by", f"{self.managed_by}; {self.signatures} signature{'s' if self.signatures > 1 else ''}"
        yield "state", "enforcing" if self.enforcing else "CLOSED"
        yield "runs", _words(self.runs)
        if self.on_trial is not None:
            yield "on trial", f"{_words(self.on_trial)}, {self.seconds_left or 0:.0f} s to confirm"
        yield "confirmed", _words(self.current)
        yield "before", _words(self.previous)
        for interface, state in self.engines.items():
            yield "engine", f"{interface}: {state}"
        if self.relay is not None:
            yield "relay", self.relay
        for each in self.ended.values():
            yield "ended", each.text()
        if self.validity is not None:
            due = self.validity.due
            yield "certificate", f"until {self.validity.certificate_until}{' DUE' if 'certificate' in due else ''}"
            yield "lists", f"until {self.validity.lists_until}{' DUE' if 'lists' in due else ''}"
        if self.journal is not None:
            newest = "unknown" if self.journal.head is None else self.journal.head[:24] + "…"
            room = f"{self.journal.size / _MIB:.1f} MiB, {self.journal.free / _MIB:.1f} MiB free"
            yield "journal", f"newest record {newest}; {room}{' DUE' if self.journal.due else ''}"
        yield "image", self.image


def status(root: Root) -> Status:
    """Return what this appliance runs.

    Raises:
        AgentError: It is no firewall of the inventory.

    """
    identity, state = identify(root), State(root)
    pending = state.pending
    try:
        loaded = recall(root)
        runs = Pointer(loaded.sha256, loaded.serial)
    except AgentError:
        runs = None
    try:
        journal = kept(root)
    except OSError:
        journal = None
    left = None if pending is None else max(pending.deadline - time.clock_gettime(time.CLOCK_BOOTTIME), 0.0)
    return Status(
        firewall=identity.firewall,
        network=identity.network,
        managed_by=identity.managed_by,
        signatures=identity.signatures,
        runs=runs,
        current=state.current,
        previous=state.previous,
        on_trial=pending.current if pending is not None else None,
        seconds_left=left,
        highest_serial=state.serial,
        forwards=kernel.forwards(),
        engines={
            interface: services.state(root, services.engine(interface)) for interface in daemons.engines_of(root.bundle)
        },
        relay=services.state(root, services.RELAY) if daemons.has_relay(root.bundle) else None,
        ended=ended.read(root),
        image=image_version() or "unknown",
        boot=_BOOT.read_text(encoding="ascii").strip(),
        validity=current_validity(root),
        journal=journal,
    )


def _words(pointer: Pointer | None) -> str:
    return "none" if pointer is None else f"serial {pointer.serial}, sha256 {pointer.sha256[:16]}…"
