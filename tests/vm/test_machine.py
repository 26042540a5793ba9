"""A machine's parts, without booting anything: console, control, disks, firmware, and that nothing is left of it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from appliance_image.vm.accel import EMULATION
from appliance_image.vm.console import Console
from appliance_image.vm.errors import MachineError
from appliance_image.vm.firmware import BLANK, enrol
from appliance_image.vm.image import Image
from appliance_image.vm.machine import Card, Hardware, Machine
from appliance_image.vm.medium import LABEL, write_medium
from tests.waiting import until

_LINES = b"""\x1b[2J\x1b[01;01HBdsDxe: starting\r
/ # netpolicy: verify: closed: unsigned: nobody has signed it t=12.5\r
netpolicy: forward: ok: edge serial 3 enforcing: all of it t=30\r
netpolicy: engine@lan: ok: inspects\r
netpolicy: verify: perhaps: not a stage\r
"""


def _hardware(tmp_path: Path, *cards: Card) -> Hardware:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(1 << 20))
    return Hardware(disk, BLANK, cards, memory=256, accelerator=EMULATION)


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_console_understands_stages(tmp_path: Path) -> None:
    """Each stage is an event with its time, whatever stands before it on the line; all else is a line."""
    console = Console(io.BytesIO(_LINES), tmp_path / "log")
    console.await_end(10.0)
    found = [(event.stage, event.ok, event.text, event.guest_seconds) for event in console.events]
    assert found == [
        ("verify", False, "unsigned: nobody has signed it", 12.5),
        ("forward", True, "edge serial 3 enforcing: all of it", 30.0),
        ("engine@lan", True, "inspects", None),
    ]
    assert console.lines[0] == "BdsDxe: starting"
    assert (tmp_path / "log").read_bytes() == _LINES


def test_console_says_what_did_not_come(tmp_path: Path) -> None:
    """Who waits in vain is told why, with the last lines."""
    console = Console(io.BytesIO(_LINES), tmp_path / "log")
    with pytest.raises(MachineError, match=r"(?s)the machine has ended.*not a stage"):
        console.await_event(lambda event: event.stage == "relay", 5.0)


def test_medium_holds_bundle_and_identity(tmp_path: Path) -> None:
    """The configuration disk is an ext4 file system with the label, readable by nobody but root."""
    identity = tmp_path / "identity"
    identity.mkdir()
    (identity / "key.pem").write_bytes(b"secret")
    bundle = tmp_path / "edge-1.bundle"
    bundle.write_bytes(b"x" * 3_000_000)
    medium = tmp_path / "medium"
    write_medium(medium, bundle, identity)

    def asked(what: str) -> str:
        return subprocess.run(["debugfs", "-R", what, str(medium)], check=True, capture_output=True, text=True).stdout

    assert LABEL in asked("show_super_stats -h")
    assert "edge-1.bundle" in asked("ls -p /")
    assert "/100600/0/0/key.pem/6/" in asked("ls -p /identity")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["edge-1.bundle", "identity", "medium"]


def test_firmware_trusts_one_certificate(tmp_path: Path, image: Image) -> None:
    """Platform key, key exchange key and signer are the image's; Secure Boot is on."""
    store = image.enrol(tmp_path / "enrolled.fd")
    command = [sys.executable, "-I", "-m", "virt.firmware.vars", "--input", str(store), "--print", "--verbose"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for variable in ("PK", "KEK", "db", "SecureBootEnable"):
        assert variable in told
    assert "Microsoft" not in told


def test_no_certificate_is_refused(tmp_path: Path) -> None:
    """A file that is no certificate is told."""
    (tmp_path / "no.pem").write_text("nothing")
    with pytest.raises(MachineError, match="no keys can be enrolled"):
        enrol(tmp_path / "no.pem", tmp_path / "enrolled.fd")


def test_nothing_is_left(tmp_path: Path) -> None:
    """A machine that is off has the cards asked for; after its context QEMU is gone, the disk below untouched."""
    hardware = _hardware(tmp_path, Card("lan", "02:00:00:00:00:07"))
    before = hardware.disk.read_bytes()
    with Machine(hardware, tmp_path / "machine") as machine:
        pid = machine.pid
        assert machine.query("query-status")["status"] == "prelaunch"
        (found,) = machine.query("query-rx-filter", name="card-lan")
        assert found["main-mac"] == "02:00:00:00:00:07"
        with pytest.raises(MachineError, match="refuses no-such-command"):
            machine.query("no-such-command")
    assert _gone(pid)
    assert hardware.disk.read_bytes() == before


def test_cut_power(tmp_path: Path) -> None:
    """A machine whose power is cut is gone at once, and its successor has its disk."""
    hardware = _hardware(tmp_path)
    with Machine(hardware, tmp_path / "machine") as machine:
        machine.cut()
        assert not machine.running
        assert machine.console.ended
        with pytest.raises(MachineError, match="QEMU"):
            machine.power_on()
    kept = (tmp_path / "machine/disk.qcow2").stat().st_ino
    with Machine(hardware, tmp_path / "machine") as machine:
        assert machine.running
    assert (tmp_path / "machine/disk.qcow2").stat().st_ino == kept


def test_what_qemu_refuses_is_told(tmp_path: Path) -> None:
    """A disk that is not there, and a card that QEMU does not take, are errors with QEMU's words."""
    with pytest.raises(MachineError, match="is missing"), Machine(Hardware(tmp_path / "no.raw", BLANK), tmp_path / "a"):
        pass
    wrong = _hardware(tmp_path, Card("lan", "no MAC"))
    with pytest.raises(MachineError, match="does not start"), Machine(wrong, tmp_path / "b"):
        pass


_OWNER = """
import sys, time
from pathlib import Path
from appliance_image.vm.firmware import BLANK
from appliance_image.vm.machine import Hardware, Machine
hardware = Hardware(Path(sys.argv[1]), BLANK, memory=256, accelerator="tcg,thread=multi")
with Machine(hardware, Path(sys.argv[2])) as machine:
    print(machine.pid, flush=True)
    time.sleep(60)
"""


def test_dies_with_its_owner(tmp_path: Path) -> None:
    """QEMU is gone when the process that has started it was killed."""
    disk = _hardware(tmp_path).disk
    command = [sys.executable, "-c", _OWNER, str(disk), str(tmp_path / "machine")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert not _gone(pid)
        owner.send_signal(signal.SIGKILL)
    assert until(lambda: _gone(pid), 30.0)
