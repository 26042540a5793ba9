"""A machine from one boot to the next: daemons that end and come back; image updates refused, taken, and given up."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from appliance_image.agent.release import FILES, KERNEL
from appliance_image.signing.key import SigningKey
from appliance_image.signing.release import write_update
from appliance_image.vm.boot import Parts, write_trial_medium
from appliance_image.vm.console import Event
from appliance_image.vm.errors import MachineError
from appliance_image.vm.guest import BOOT_SECONDS, ENFORCING, plugged
from appliance_image.vm.image import Image
from appliance_image.vm.machine import Machine
from appliance_image.vm.operators import TrialOperators
from conformance.lab import Lab
from conformance.lab.rooted import Root
from conformance.pki import Identities
from netpolicy.alerts import read_alerts, summarise
from netpolicy.alerts.read import sources
from netpolicy.pki.authority import Authority, Span, new_key
from netpolicy.pki.purpose import CODE_SIGNING
from netpolicy.topology.model import Topology
from tests.image.built import release_key, release_lists, second_for_tests
from tests.vm.ending import NAMES, Ending

FIREWALL, OPERATOR = "shinagawa-line-fw", "agency-operator"
_CLI = "import sys; from netpolicy.cli import main; sys.exit(main())"
_COMMAND_SECONDS = 30.0
_BACK_SECONDS, _STARTS = 5.0, 2.0
"""Within which a daemon is back; emulated, in so many times what engine, relay and forwarding took when it booted."""
_BOOTS = 4
"""More are not needed, and would be a loop."""
_SUPERBLOCK = 1024
_ESP = "/dev/disk/by-partuuid/6e657470-6f6c-4963-a000-000000000001"


@dataclass
class Appliance:
    """An appliance from its power-on to many boots later, and its operator's console."""

    image: Image
    lab: Lab
    identity: Path
    place: Path
    medium: Path
    stack: ExitStack
    told: list[list[Event]] = field(default_factory=list)
    """The stages of each boot."""
    lines: list[str] = field(default_factory=list)
    machine: Machine | None = None

    def boot(self) -> None:
        """Switch it on, and again for each time that it starts itself anew, until it enforces.

        A machine that resets itself is a new process each time: QEMU's emulation is ten times slower after a reset.
        """
        for _ in range(_BOOTS):
            self.stack.close()
            firewall = self.lab.topology.firewalls[FIREWALL]
            opened = plugged(self.image, firewall, self.place, lab=self.lab, medium=self.medium)
            self.machine = machine = self.stack.enter_context(opened)
            machine.query("set-action", reboot="shutdown")
            machine.power_on()
            with suppress(MachineError):
                machine.console.await_event(
                    lambda event: event.stage == ENFORCING, BOOT_SECONDS * machine.hardware.patience
                )
            self.told.append(machine.console.events)
            self.lines += machine.console.lines
            if any(event.stage == ENFORCING and event.ok for event in self.told[-1]):
                return
            assert machine.console.ended, machine.console.last_words()
        raise AssertionError(f"{_BOOTS} boots, and it does not enforce")

    def restart(self) -> None:
        """Have its operator start it again, and wait until it enforces."""
        assert self.machine is not None
        exit_code, said = self.remote("restart", "--wait", "0s")
        assert exit_code == 0, said
        self.machine.console.await_end(_COMMAND_SECONDS * self.machine.hardware.patience)
        assert self.machine.console.ended
        self.boot()

    def reboot(self) -> None:
        """Start it again where its operator cannot reach it: at the machine."""
        assert self.machine is not None
        self.machine.type("\nsystemctl reboot\n")
        self.machine.console.await_end(_COMMAND_SECONDS * self.machine.hardware.patience)
        assert self.machine.console.ended
        self.boot()

    def root(self, boot: int) -> str:
        """Return the root hash of a boot."""
        return next(event.text for event in self.told[boot] if event.stage == "verity").rpartition(" ")[2]

    def remote(self, *arguments: str) -> tuple[int, str]:
        """Return exit code and words of ``netpolicy remote``."""
        command = [sys.executable, "-c", _CLI, "remote", FIREWALL, "--identity", str(self.identity), *arguments]
        done = self.lab.namespace(OPERATOR).run(command, timeout=600.0)
        return done.returncode, done.stdout + done.stderr

    def shell(self, command: str) -> list[str]:
        """Return what a command says on the console that a test image has."""
        assert self.machine is not None
        console = self.machine.console
        since = len(console.lines)
        self.machine.type(f"\n{command}; echo en''ded\n")
        console.await_line("^ended$", _COMMAND_SECONDS * self.machine.hardware.patience, since)
        return console.lines[since:]

    def await_back(self, copy: Path) -> None:
        """Kill engine and relay under a flood, one after the other, and see that they come back, which is told."""
        ending = self.ending()
        at = {event.stage: event.guest_seconds for event in self.told[-1]}
        begun, forwards = at["rules"], at[ENFORCING]
        assert begun is not None
        assert forwards is not None
        with ending.flooded() as deluge:
            took = {unit: ending.comes_back(deluge, unit) for unit in NAMES}
        print(f"back after {took} s; at boot engine, relay and forwarding took {forwards - begun:.1f} s")
        assert max(took.values()) < max(_BACK_SECONDS, _STARTS * (forwards - begun))
        self.await_managed()
        exit_code, said = self.remote("status")
        assert exit_code == 0, said
        for name in NAMES.values():
            assert re.search(rf"(?m)^ended +{name}: 1 time, last \S+: ended by signal 9; runs again$", said), said
        exit_code, said = self.remote("journal", "--into", str(copy))
        assert exit_code == 0, said
        rows = summarise(alert for path in sources(copy) for alert in read_alerts(path))
        assert {row.firewall for row in rows} == {FIREWALL}
        assert {row.signature for row in rows} == {f"ended {each}" for each in NAMES.values()}

    def ending(self) -> Ending:
        """Return what ends its daemons."""
        assert self.machine is not None
        return Ending(self.machine, self.lab, self.lab.topology.firewalls[FIREWALL], self.shell)

    def await_managed(self) -> None:
        """Wait until its management answers, which begins when it enforces, and it was found healthy."""
        deadline = time.monotonic() + _COMMAND_SECONDS * 4
        while self.remote("status")[0] != 0 or any("+" in name for name in self.images()):
            assert time.monotonic() < deadline, self.remote("status")
            time.sleep(1.0)

    def images(self, before: str = ":") -> list[str]:
        """Return the names of kernel images, after another command."""
        listed = self.shell(
            f"busybox mkdir -p /tmp/esp; busybox mount -t vfat {_ESP} /tmp/esp; cd /tmp/esp/EFI/Linux; {before}; "
            "busybox ls -1; cd /; busybox umount /tmp/esp"
        )
        return sorted(line for line in listed if line.startswith("netpolicy_") and line.endswith(".efi"))


def _release(path: Path, image: Image) -> Path:
    """Write the release of an image."""
    files = {name: image.directory / name for name in FILES}
    write_update(
        path, image.manifest["version"], image.manifest["roothash"], files, keys=[release_key()], crl=release_lists()
    )
    return path


def _refused(place: Path, version: str) -> dict[str, Path]:
    """Return what is refused, by code: of small files, since it is refused before they matter."""
    small = {name: place / name for name in FILES}
    for name, path in small.items():
        path.write_bytes(name.encode() * 1000)
    now, key = datetime.now(UTC), new_key()
    span = Span.of(now, timedelta(days=1))
    strangers = Authority.root("strangers", now - timedelta(days=1))
    stranger = SigningKey(key, strangers.operator("S", "s", key.public_key(), span, CODE_SIGNING), "memory")
    found = {code: place / f"{code}.tar" for code in ("wrong-signer", "older-version", "altered")}
    write_update(found["wrong-signer"], f"{version}.2", "0" * 64, small, keys=[stranger], crl=release_lists())
    write_update(found["older-version"], "1.0", "0" * 64, small, keys=[release_key()], crl=release_lists())
    write_update(found["altered"], f"{version}.2", "0" * 64, small, keys=[release_key()], crl=release_lists())
    content = found["altered"].read_bytes()
    found["altered"].write_bytes(content.replace(KERNEL.encode() * 3, KERNEL.upper().encode() * 3, 1))
    return found


@pytest.fixture(name="lab")
def _lab(network: Topology, compiled: Path, identities: Identities) -> Iterator[Lab]:
    """Yield a lab without that firewall."""
    with Lab(network, compiled, Root.find(), inline=False, elsewhere={FIREWALL}) as lab:
        lab.start_relays(identities.directory)
        yield lab


@pytest.fixture(name="appliance")
def _appliance(
    lab: Lab, image: Image, operators: TrialOperators, identities: Identities, tmp_path: Path
) -> Iterator[Appliance]:
    """Yield the firewall, which enforces."""
    place = tmp_path / "vm"
    place.mkdir()
    medium = write_trial_medium(Parts(image, operators, place), lab, identities, FIREWALL)
    console = identities.of(lab.topology.nodes[OPERATOR]).directory
    with ExitStack() as machine:
        found = Appliance(image, lab, console, place, medium, machine)
        found.boot()
        yield found


def test_update(appliance: Appliance, image: Image, identities: Identities, tmp_path: Path) -> None:
    """Refused images change nothing; a good one is booted and proven; when it is spoilt the one before takes over.

    Before that, daemons end and come back; last of all the engine is given up, which the start of the new image ends.
    """
    second = Image.read(second_for_tests())
    first_version, version = image.manifest["version"], second.manifest["version"]
    first_name, second_name = f"netpolicy_{first_version}.efi", f"netpolicy_{version}.efi"
    appliance.await_managed()
    assert appliance.images() == [first_name]

    appliance.await_back(tmp_path / "copy")

    # A new key and certificate for its relay and its management, which goes on with them; and once more what it has.
    firewall = appliance.lab.topology.firewalls[FIREWALL]
    identities.renew(firewall, now=datetime.now(UTC))
    exit_code, said = appliance.remote("renew", str(identities.of(firewall).directory))
    assert exit_code == 0, said
    serial = x509.load_pem_x509_certificates(identities.of(firewall).chain.read_bytes())[0].serial_number
    assert f"has certificate {serial:x}, until " in said
    appliance.await_managed()
    exit_code, said = appliance.remote("renew", str(identities.of(firewall).directory))
    assert (exit_code, "refuses: same: " in said) == (2, True), said
    told = json.loads(appliance.remote("status", "--json")[1])
    assert told["validity"]["certificate"] == f"{serial:x}"
    assert told["journal"]["head"] is not None
    assert not told["journal"]["due"]

    for code, path in _refused(tmp_path, version).items():
        exit_code, said = appliance.remote("image-update", str(path))
        assert (exit_code, f": {code}: " in said) == (2, True), said
    assert appliance.images() == [first_name]

    exit_code, said = appliance.remote("image-update", str(_release(tmp_path / "good.tar", second)))
    assert exit_code == 0, said
    assert appliance.images() == [f"netpolicy_{version}+3.efi", first_name]

    appliance.ending().is_given_up()
    appliance.reboot()
    assert len(appliance.told) == 2
    assert [appliance.root(0), appliance.root(1)] == [image.manifest["roothash"], second.manifest["roothash"]]
    assert any(event.text == f"pcr11 sha256 {second.pcr11}" for event in appliance.told[1])
    appliance.await_managed()
    assert appliance.images() == [second_name, first_name]

    # On trial once more, with one try left, and a bit of its root is another one.
    spoil = (
        f"busybox mv {second_name} netpolicy_{version}+1-2.efi; busybox printf x | "
        f"busybox dd of=/dev/disk/by-partlabel/netpolicy-b bs=1 seek={_SUPERBLOCK + 1} conv=notrunc"
    )
    assert appliance.images(spoil) == [f"netpolicy_{version}+1-2.efi", first_name]
    appliance.restart()
    spoilt, back = appliance.told[2:]
    assert {event.stage for event in spoilt if event.ok} <= {"init", "drop-all"}
    assert [event.stage for event in back if event.ok][-1] == ENFORCING
    assert appliance.root(3) == image.manifest["roothash"]
    assert appliance.images() == [f"netpolicy_{version}+0-3.efi", first_name]
    assert not [line for line in appliance.lines if "ordering cycle" in line]
    print(*(f"boot: {each[-1]}" for each in appliance.told), sep="\n")
