"""One virtual machine: QEMU with the firmware, a TPM, disks, network cards and a console; gone with its context."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

from appliance_image.vm.accel import EMULATION, accelerator, machine_options
from appliance_image.vm.console import Console, Event
from appliance_image.vm.errors import MachineError
from appliance_image.vm.firmware import CODE
from appliance_image.vm.qmp import Monitor
from appliance_image.vm.tpm import Tpm
from conformance.lab.reaper import Reaper

T = TypeVar("T")

TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "swtpm": "swtpm",
    "mkfs.ext4": "e2fsprogs",
}
"""Programs that machines need, and the Debian packages that have them."""

_SECONDS = 60.0
_END_SECONDS = 10.0
_PORTS = 8
"""Places for devices that come while it runs."""


@dataclass(frozen=True, slots=True)
class Card:
    """A network card."""

    name: str
    """Of the interface, for people and QEMU's own names."""
    mac: str
    tap: int | None = None
    """Descriptor of the tap device at its other end; without one its cable leads nowhere."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a machine is made of."""

    disk: Path
    """Raw; never written to: changes go to a file beside."""
    variables: Path
    """The firmware's, with the keys it trusts; a copy is used."""
    cards: tuple[Card, ...] = ()
    medium: Path | None = None
    """A raw configuration disk, read-only."""
    memory: int = 1024
    """MiB."""
    processors: int = 2
    tpm: bool = True
    hotplug: bool = False
    """Whether there are ports for devices that come later."""
    accelerator: str = field(default_factory=accelerator)

    @property
    def patience(self) -> float:
        """By how much longer than on hardware things may take."""
        return 4.0 if self.accelerator == EMULATION else 1.0


def lacking() -> list[str]:
    """Return what this machine lacks to run virtual ones."""
    found = [f"program {tool}: Debian package {package}" for tool, package in TOOLS.items() if not shutil.which(tool)]
    if not CODE.is_file():
        found.append(f"{CODE}: Debian package ovmf")
    return found


class Machine:
    """A machine that is off until :meth:`power_on`, and gone, with all its processes, after the context."""

    console: Console
    monitor: Monitor

    def __init__(
        self,
        hardware: Hardware,
        work: Path,
        *,
        incoming: Path | None = None,
        hear: Callable[[Event], None] = lambda _event: None,
    ) -> None:
        """Prepare a machine.

        Args:
            hardware: What it is made of.
            work: A directory for what it changes: disk, variables, TPM, console. One that a machine has used before
                gives its successor the same disk and TPM, as they were when that one was cut off.
            incoming: The memory of a machine that was saved (:meth:`save`); it goes on from there.
            hear: Told of every stage of the boot, from another thread.

        """
        self.hardware = hardware
        self.work = work
        self._incoming = incoming
        self._hear = hear
        self._exit = ExitStack()
        self._process: subprocess.Popen[Any] | None = None

    def __enter__(self) -> Self:
        """Plug it together; it is not switched on.

        Raises:
            MachineError: QEMU or a disk cannot be made.

        """
        with ExitStack() as stack:
            self._start(stack)
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._exit.close()

    @property
    def disk(self) -> Path:
        """What has been written to the disk."""
        return self.work / "disk.qcow2"

    @property
    def pid(self) -> int:
        """QEMU's."""
        assert self._process is not None  # noqa: S101 - it is started with the context
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether QEMU lives."""
        return self._process is not None and self._process.poll() is None

    def power_on(self) -> None:
        """Switch it on, or let it go on after :meth:`pause`.

        Raises:
            MachineError: QEMU refuses.

        """
        self.console.begin()
        self.monitor.ask("cont")

    def type(self, text: str) -> None:
        """Type on the serial console, which only a test image listens to.

        Raises:
            MachineError: QEMU is gone.

        """
        assert self._process is not None  # noqa: S101 - it is started with the context
        assert self._process.stdin is not None  # noqa: S101 - PIPE was asked for
        try:
            self._process.stdin.write(text.encode())
            self._process.stdin.flush()
        except OSError as gone:
            raise MachineError(f"nobody hears the console: {gone}") from gone

    def pause(self) -> None:
        """Hold its processors."""
        self.monitor.ask("stop")

    def cut(self) -> None:
        """Cut the power: nothing that it has not written is kept.

        Raises:
            MachineError: QEMU does not end.

        """
        if self._process is None:
            return
        self._process.kill()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired as stuck:
            raise MachineError(f"QEMU (process {self._process.pid}) does not end") from stuck
        self.console.await_end(_END_SECONDS)

    def plug_disk(self, port: int, medium: Path) -> None:
        """Put a read-only disk into a free port while it runs."""
        self.monitor.ask(
            "blockdev-add", driver="raw", node_name=f"medium{port}", read_only=True,
            file={"driver": "file", "filename": str(medium), "locking": "off"},
        )  # fmt: skip
        self.monitor.ask(
            "device_add", driver="virtio-blk-pci", id=f"disk{port}", bus=f"port{port}", drive=f"medium{port}"
        )

    def plug_card(self, port: int, card: Card) -> None:
        """Put a network card into a free port while it runs."""
        if card.tap is None:
            with _nowhere() as end:
                self.monitor.ask("getfd", end.fileno(), fdname=f"end{port}")
            self.monitor.ask("netdev_add", type="dgram", id=f"net{port}", local={"type": "fd", "str": f"end{port}"})
        else:
            self.monitor.ask("getfd", card.tap, fdname=f"tap{port}")
            self.monitor.ask("netdev_add", type="tap", id=f"net{port}", fd=f"tap{port}", vhost=False)
        self.monitor.ask(
            "device_add", driver="virtio-net-pci", id=f"card{port}", bus=f"port{port}", netdev=f"net{port}",
            mac=card.mac, romfile="",
        )  # fmt: skip

    def save(self, memory: Path) -> None:
        """Write the memory of a machine to a file, and leave it paused; its disk is to be kept with it.

        Raises:
            MachineError: QEMU cannot.

        """
        self.pause()
        with memory.open("wb") as stream:
            self.monitor.ask("getfd", stream.fileno(), fdname="memory")
            self.monitor.ask("migrate-set-parameters", max_bandwidth=1 << 40)
            self.monitor.ask("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
            self.monitor.ask("migrate", uri="fd:memory")
            while True:
                status = self.monitor.await_event("MIGRATION", _SECONDS)["status"]
                if status == "completed":
                    return
                if status in {"failed", "cancelled"}:
                    raise MachineError(f"QEMU cannot save the machine: {status}")

    def query(self, command: str, **arguments: Any) -> Any:
        """Ask QEMU something; see :meth:`Monitor.ask`."""
        return self.monitor.ask(command, **arguments)

    def _start(self, stack: ExitStack) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        self._make_disk()
        variables = self.work / "variables.fd"
        if not variables.exists():
            shutil.copyfile(self.hardware.variables, variables)
        reaper = stack.enter_context(Reaper())

        def spawn(command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
            # It leaves a thread that can make no others (setns(2)).
            return _in_thread(lambda: reaper.popen(command, **options))

        ours, theirs = socket.socketpair()
        self.monitor = Monitor(ours)
        stack.callback(self.monitor.close)
        with theirs:
            passed = [theirs.fileno()]
            command = self._command(variables, theirs.fileno())
            if self.hardware.tpm:
                tpm = Tpm(spawn, self.work / "tpm")
                stack.callback(tpm.hand_over)
                command += Tpm.options(tpm.descriptor)
                passed.append(tpm.descriptor)
            for number, card in enumerate(self.hardware.cards):
                end = card.tap if card.tap is not None else stack.enter_context(_nowhere()).fileno()
                command += _card_options(number, card, end)
                passed.append(end)
            if self._incoming is not None:
                memory = stack.enter_context(self._incoming.open("rb"))
                command += ["-incoming", f"fd:{memory.fileno()}"]
                passed.append(memory.fileno())
            said = stack.enter_context((self.work / "qemu.log").open("wb"))
            self._process = process = spawn(
                command,
                pass_fds=passed,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,
            )
            if self.hardware.tpm:
                tpm.hand_over()
        stream: IO[bytes] | None = process.stdout
        assert stream is not None  # noqa: S101 - PIPE was asked for
        stack.callback(self._end, stream)
        self.console = Console(stream, self.work / "console.log", self._hear)
        try:
            self.monitor.ask("query-status")
            if self._incoming is not None:
                while self.monitor.ask("query-status")["status"] == "inmigrate":
                    process.poll()
        except MachineError as gone:
            words = (self.work / "qemu.log").read_text(encoding="utf-8", errors="replace").strip()
            raise MachineError(f"QEMU does not start: {words or gone}") from gone

    def _end(self, stream: IO[bytes]) -> None:
        process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
            self.console.await_end(_END_SECONDS)
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
        stream.close()

    def _make_disk(self) -> None:
        if self.disk.exists():
            return
        backing = json.dumps(
            {"driver": "raw", "file": {"driver": "file", "filename": str(self.hardware.disk.absolute())}}
        )
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", f"json:{backing}", str(self.disk)]
        if not self.hardware.disk.is_file():
            raise MachineError(f"{self.hardware.disk} is missing")
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        if done.returncode != 0:
            raise MachineError(f"no disk can be made over {self.hardware.disk}: {done.stderr.strip()}")

    def _command(self, variables: Path, monitor: int) -> list[str]:
        hardware = self.hardware
        command = [
            "qemu-system-x86_64",
            *machine_options(hardware.accelerator),
            *("-drive", f"if=pflash,format=raw,unit=1,file={variables}"),
            *("-name", "netpolicy", "-S"),
            *("-m", str(hardware.memory), "-smp", str(hardware.processors)),
            *("-rtc", "base=utc"),
            *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
            *("-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control"),
            *("-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial"),
            *("-object", "rng-builtin,id=rng", "-device", "virtio-rng-pci,rng=rng"),
            *("-drive", f"if=none,id=system,format=qcow2,file={self.disk}"),
            *("-device", "virtio-blk-pci,drive=system,bootindex=1,serial=system"),
        ]
        if hardware.medium is not None:
            command += [
                *("-drive", f"if=none,id=medium,format=raw,readonly=on,file={hardware.medium}"),
                *("-device", "virtio-blk-pci,drive=medium,serial=medium"),
            ]
        if hardware.hotplug:
            for number in range(_PORTS):
                command += ["-device", f"pcie-root-port,id=port{number},chassis={number + 1},slot={number + 1}"]
        return command


def _card_options(number: int, card: Card, end: int) -> list[str]:
    kind = f"dgram,local.type=fd,local.str={end}" if card.tap is None else f"tap,fd={end},vhost=off"
    return [
        *("-netdev", f"{kind},id=net-{number}"),
        # No ROM: the firmware must not speak on any of them.
        *("-device", f"virtio-net-pci,netdev=net-{number},id=card-{card.name},mac={card.mac},romfile="),
    ]


def _nowhere() -> socket.socket:
    """Return the end of a cable whose other end is cut off: what is sent on it is gone."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    theirs.close()
    return ours


def _in_thread(function: Callable[[], T]) -> T:
    result: Future[T] = Future()

    def body() -> None:
        try:
            result.set_result(function())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            result.set_exception(error)

    threading.Thread(target=body, name="spawn", daemon=True).start()
    return result.result()
