"""Whoever changes the image on its disk has an appliance that does not start: firmware and hash tree see to it."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from appliance_image.signing.authenticode import sign
from appliance_image.signing.card import Card as SmartCard
from appliance_image.signing.card import card_key
from appliance_image.vm.guest import cards, plugged
from appliance_image.vm.image import Image
from appliance_image.vm.machine import Card, Hardware, Machine
from netpolicy.topology.model import Topology
from tests.bundle.making import MODULE, PIN, import_key, make_token

_SECTOR = 512
_SECONDS = 60.0
_REFUSED = r"[Aa]ccess [Dd]enied|Security [Vv]iolation|No bootable option|Error loading"


def _partition(disk: Path, label: str) -> tuple[int, int]:
    """Return offset and size, in bytes, of a partition (UEFI, 5.3: GPT header, array of entries)."""
    with disk.open("rb") as stream:
        stream.seek(_SECTOR)
        header = stream.read(92)
        assert header[:8] == b"EFI PART"
        at, count, size = struct.unpack_from("<QII", header, 72)
        stream.seek(at * _SECTOR)
        for _ in range(count):
            entry = stream.read(size)
            if entry[56:128].decode("utf-16-le").rstrip("\0") == label:
                first, last = struct.unpack_from("<QQ", entry, 32)
                return first * _SECTOR, (last - first + 1) * _SECTOR
    raise LookupError(label)


def _copy(image: Image, place: Path) -> Path:
    subprocess.run(["cp", "--sparse=always", str(image.disk), str(place / "disk.raw")], check=True)
    return place / "disk.raw"


def _flip(disk: Path, at: int) -> None:
    with disk.open("r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)[0]
        stream.seek(at)
        stream.write(bytes([byte ^ 1]))


def _kernel(disk: Path) -> tuple[str, str]:
    """Return how mtools call the boot partition, and the kernel image in it."""
    start, _ = _partition(disk, "netpolicy-esp")
    where = f"{disk}@@{start}"
    told = subprocess.run(["mdir", "-b", "-i", where, "::/EFI/Linux"], check=True, capture_output=True, text=True)
    (name,) = told.stdout.split()
    return where, name


def _put(disk: Path, content: Path) -> None:
    where, name = _kernel(disk)
    subprocess.run(["mcopy", "-o", "-i", where, str(content), name], check=True)


def _unsigned(image: Image, disk: Path) -> None:
    _put(disk, image.directory / "kernel.unsigned.efi")


def _command_line(image: Image, disk: Path) -> None:
    content = (image.directory / "kernel.efi").read_bytes()
    before = b"netpolicy.roothash="
    assert content.count(before) == 1
    changed = disk.with_name("changed.efi")
    changed.write_bytes(content.replace(before, b"netpolicy.rootcash="))
    _put(disk, changed)


def _loader(image: Image, disk: Path) -> None:
    where, _ = _kernel(disk)
    loader = disk.with_name("loader.efi")
    name = "::/EFI/BOOT/BOOTX64.EFI"
    subprocess.run(["mcopy", "-i", where, name, str(loader)], check=True)
    content = bytearray(loader.read_bytes())
    content[len(content) // 3] ^= 1
    loader.write_bytes(content)
    subprocess.run(["mcopy", "-o", "-i", where, str(loader), name], check=True)
    del image


@pytest.mark.parametrize("change", [_unsigned, _command_line, _loader], ids=["unsigned", "command line", "boot loader"])
def test_firmware_refuses(image: Image, tmp_path: Path, change: Callable[[Image, Path], None]) -> None:
    """What the key has not signed, or not like this, is not started: nothing of it says a word."""
    disk = _copy(image, tmp_path)
    change(image, disk)
    hardware = Hardware(disk, image.enrol(tmp_path / "enrolled.fd"), cards=(Card("any", "02:00:00:00:00:07"),))
    with Machine(hardware, tmp_path / "machine") as machine:
        machine.power_on()
        print(machine.console.await_line(_REFUSED, _SECONDS * machine.hardware.patience))
        assert machine.console.events == []


def test_the_same_kernel_put_back_starts(image: Image, tmp_path: Path) -> None:
    """The control: it is what was put there that is refused, not the putting."""
    disk = _copy(image, tmp_path)
    _put(disk, image.directory / "kernel.efi")
    with Machine(Hardware(disk, image.enrol(tmp_path / "enrolled.fd")), tmp_path / "machine") as machine:
        machine.power_on()
        machine.console.await_event(lambda event: event.stage == "verity", _SECONDS * machine.hardware.patience)


def test_a_kernel_that_a_card_has_signed_starts(image: Image, softhsm: Path, tmp_path: Path) -> None:
    """The firmware takes a card's signature as it takes the other."""
    make_token(softhsm, "boot")
    import_key(softhsm, "boot", image.directory / "private/secure-boot.key")
    certificate = x509.load_pem_x509_certificate(image.certificate.read_bytes())
    with card_key(SmartCard(MODULE, "boot", lambda _: PIN, tmp_path / "pin"), certificate=certificate) as key:
        unsigned = (image.directory / "kernel.unsigned.efi").read_bytes()
        (tmp_path / "signed.efi").write_bytes(sign(unsigned, key, datetime.now(UTC)))
    disk = _copy(image, tmp_path)
    _put(disk, tmp_path / "signed.efi")
    with Machine(Hardware(disk, image.enrol(tmp_path / "enrolled.fd")), tmp_path / "machine") as machine:
        machine.power_on()
        machine.console.await_event(lambda event: event.stage == "verity", _SECONDS * machine.hardware.patience)


def test_changed_root_does_not_start(image: Image, network: Topology, tmp_path: Path) -> None:
    """One bit of the root changed: the kernel panics when it is read, before any stage after it."""
    disk = _copy(image, tmp_path)
    start, _ = _partition(disk, "netpolicy-a")
    _flip(disk, start + 1024)  # the superblock of erofs
    changed = tmp_path / "image"
    changed.mkdir()
    for each in ("image.json", "secure-boot.pem"):
        shutil.copyfile(image.directory / each, changed / each)
    disk.rename(changed / "disk.raw")
    firewall = network.firewalls["shinagawa-line-fw"]
    with plugged(Image.read(changed), firewall, tmp_path / "vm") as machine:
        assert machine.hardware.cards == cards(firewall)
        machine.power_on()
        line = machine.console.await_line(
            r"dm-verity.*corrupt|Kernel panic|netpolicy: verity: closed", _SECONDS * machine.hardware.patience
        )
        print(line)
        assert re.search("verity|panic", line)
        stages = {event.stage for event in machine.console.events if event.ok}
        assert stages <= {"init", "drop-all"}
