"""A saved guest becomes a firewall when its cards and its disk are plugged in; with a wrong bundle it becomes none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from appliance_image.vm.console import Event
from appliance_image.vm.errors import ClosedError
from appliance_image.vm.guest import await_enforcing, cards
from appliance_image.vm.machine import Machine
from appliance_image.vm.medium import write_medium
from appliance_image.vm.operators import TrialOperators
from appliance_image.vm.snapshot import Saved, restored
from appliance_image.vm.trial import Wish, pinned_build, write_bundle
from conformance.pki import Identities
from netpolicy.topology.ends import End
from netpolicy.topology.model import Topology

FIREWALL, TWO_SIGN = "shinagawa-municipal-fw", "centre-agency-fw"
ONE, OTHER = "shinagawa-line-fw", "tachikawa-line-fw"
"""Two of one manager."""


@dataclass
class Shelf:
    """What bundles are made of."""

    network: Topology
    compiled: Path
    operators: TrialOperators
    identities: Identities
    place: Path

    def build(self, firewall: str) -> Path:
        """Return a build of one firewall, with all certificates pinned."""
        ends: list[End] = [*self.network.nodes.values(), *self.network.firewalls.values()]
        return pinned_build(self.compiled, firewall, self.identities.fingerprints(ends), self.place / "build")

    def bundle(self, wish: Wish, operators: TrialOperators | None = None) -> Path:
        """Return a bundle."""
        wish = replace(wish, authorities=self.identities.authorities())
        return write_bundle(self.build(wish.firewall), wish, operators or self.operators, self.place)


@pytest.fixture(name="shelf")
def _shelf(
    network: Topology, compiled: Path, operators: TrialOperators, identities: Identities, tmp_path: Path
) -> Shelf:
    return Shelf(network, compiled, operators, identities, tmp_path)


def _boot(
    saved: Saved, shelf: Shelf, firewall: str, bundle: Path, then: Callable[[Machine], None] = lambda _machine: None
) -> list[Event]:
    """Plug a firewall's cards and a bundle in, and return its stages up to enforcing."""
    known = shelf.network.firewalls[firewall]
    medium = shelf.place / "medium"
    write_medium(medium, bundle, shelf.identities.of(known).directory)
    with restored(saved, shelf.place / "vm", cards(known), medium) as machine:
        await_enforcing(machine)
        then(machine)
        return machine.console.events


def _await_proven(machine: Machine) -> None:
    """Wait until its kernel image has no number of tries any more: it was found healthy."""
    since = len(machine.console.lines)
    esp = "/dev/disk/by-partuuid/6e657470-6f6c-4963-a000-000000000001"
    machine.type(
        f"\nbusybox mkdir /tmp/esp; busybox mount -t vfat {esp} /tmp/esp; "
        "while busybox ls /tmp/esp/EFI/Linux | busybox grep -q +; do busybox sleep 1; done; "
        "busybox ls -1 /tmp/esp/EFI/Linux\n"
    )
    machine.console.await_line(r"^netpolicy_[0-9.]+\.efi$", 15.0 * machine.hardware.patience, since)


def test_becomes_a_firewall(saved: Saved, shelf: Shelf) -> None:
    """Its cards say which one it is, its disk what it runs; late as they come, its image is found healthy."""
    events = _boot(saved, shelf, FIREWALL, shelf.bundle(Wish(FIREWALL)), _await_proven)
    assert [event.stage for event in events] == ["measured", "verify", "wire", "rules", "engine", "relay", "forward"]
    assert events[-1].text.startswith(f"{FIREWALL} serial 1")


def _unsigned(shelf: Shelf) -> Path:
    return shelf.bundle(Wish(FIREWALL, people=()))


def _foreign(shelf: Shelf) -> Path:
    strangers = TrialOperators.make(shelf.place / "strangers", shelf.network)
    return shelf.bundle(Wish(FIREWALL), strangers)


def _one_of_two(shelf: Shelf) -> Path:
    return shelf.bundle(Wish(TWO_SIGN, people=("first",)))


def _of_another(shelf: Shelf) -> Path:
    return shelf.bundle(Wish(OTHER))


def _expired(shelf: Shelf) -> Path:
    begin = datetime.now(UTC) - timedelta(minutes=5)
    return shelf.bundle(Wish(FIREWALL, not_before=begin, life=timedelta(minutes=5, seconds=3)))


def _early(shelf: Shelf) -> Path:
    return shelf.bundle(Wish(FIREWALL, not_before=datetime.now(UTC) + timedelta(hours=12)))


def _altered(shelf: Shelf) -> Path:
    bundle = shelf.bundle(Wish(FIREWALL))
    content = bytearray(bundle.read_bytes())
    at = content.index(b"policy drop")
    content[at : at + 11] = b"policy dr0p"
    bundle.write_bytes(content)
    return bundle


@pytest.mark.parametrize(
    ("make", "firewall", "code"),
    [
        (_unsigned, FIREWALL, "unsigned"),
        (_foreign, FIREWALL, "wrong-operator"),
        (_one_of_two, TWO_SIGN, "too-few-operators"),
        (_of_another, ONE, "other-firewall"),
        (_expired, FIREWALL, "expired"),
        (_early, FIREWALL, "not-yet-valid"),
        (_altered, FIREWALL, "altered"),
    ],
)
def test_stays_closed(saved: Saved, shelf: Shelf, make: Callable[[Shelf], Path], firewall: str, code: str) -> None:
    """Whatever is wrong with a bundle, the appliance says what, and nothing is loaded."""
    with pytest.raises(ClosedError, match=rf"verify: {code}: "):
        _boot(saved, shelf, firewall, make(shelf))
