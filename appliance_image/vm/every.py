"""Every firewall of a network, from one saved guest: each boots its own bundle."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from appliance_image.vm.boot import Parts
from appliance_image.vm.console import Event
from appliance_image.vm.errors import MachineError
from appliance_image.vm.guest import await_enforcing, cards
from appliance_image.vm.medium import write_medium
from appliance_image.vm.snapshot import Saved, restored, save
from appliance_image.vm.trial import Wish, pinned_build, write_bundle
from conformance.pki import Identities, issue_identities
from netpolicy.topology.ends import End
from netpolicy.topology.model import Firewall, Topology


@dataclass(frozen=True, slots=True)
class Became:
    """What became of a saved guest."""

    firewall: str
    seconds: float
    """From the moment it went on."""
    events: list[Event]
    failure: str = ""
    """Why it does not enforce."""


def boot_every(
    parts: Parts, topology: Topology, build: Path, firewalls: Iterable[str], jobs: int = 1
) -> Iterator[Saved | Became]:
    """Yield the guest that was saved, and then what each firewall became of it, in the order given.

    Args:
        parts: Image, operators and a directory for files.
        topology: Whose firewalls.
        build: What they run.
        firewalls: Which of them.
        jobs: How many machines at the same time; each has 1 GiB of memory.

    Raises:
        MachineError: The image does not boot so far that it can be saved.

    """
    identities = issue_identities(topology, parts.work / "identities", now=datetime.now(UTC))
    saved = save(parts.image, parts.work / "saved", hear=parts.hear)
    yield saved
    ends: list[End] = [*topology.nodes.values(), *topology.firewalls.values()]
    certificates = identities.fingerprints(ends)

    def become(firewall: str) -> Became:
        known, place = topology.firewalls[firewall], parts.work / firewall
        medium = _medium(parts, build, known, certificates, identities)
        return _become(parts, saved, known, place / "vm", medium)

    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(become, firewalls)


def _medium(
    parts: Parts, build: Path, firewall: Firewall, certificates: Mapping[str, Iterable[str]], identities: Identities
) -> Path:
    """Return the configuration disk of a firewall."""
    place = parts.work / firewall.id
    place.mkdir()
    pinned = pinned_build(build, firewall.id, certificates, place / "build")
    bundle = write_bundle(pinned, Wish(firewall.id, authorities=identities.authorities()), parts.operators, place)
    write_medium(place / "medium", bundle, identities.of(firewall).directory)
    return place / "medium"


def _become(parts: Parts, saved: Saved, firewall: Firewall, work: Path, medium: Path) -> Became:
    begun = time.monotonic()
    with restored(saved, work, cards(firewall), medium, hear=parts.hear) as machine:
        try:
            await_enforcing(machine)
            failure = ""
        except MachineError as closed:
            failure = str(closed)
        return Became(firewall.id, time.monotonic() - begun, machine.console.events, failure)
