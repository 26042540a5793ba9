"""A service manager for tests: as much of ``systemctl`` as the agent uses, with real processes.

Run as a file: CONFIGURATION systemctl ARGUMENTS…
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

FORWARD, REWIRE = "netpolicy-forward.service", "netpolicy-rewire.service"
REVIVE = "netpolicy-revive.service"
ENGINE, RELAY = "netpolicy-engine@", "netpolicy-haproxy.service"


class Manager:
    """Units, each a file with its process, or ``active``."""

    def __init__(self, configuration: Path) -> None:
        self.configuration = configuration
        self.options = json.loads(configuration.read_text(encoding="utf-8"))
        self.units = configuration.parent / "units"
        self.watchers = self.units / "watchers"
        self.watchers.mkdir(parents=True, exist_ok=True)

    def systemctl(self, arguments: list[str]) -> int:
        """Start, restart, reload, stop or tell."""
        verb, *rest = arguments
        units = [each for each in rest if not each.startswith("-")]
        if verb == "is-active":
            found = self.state(units[0])
            print(found)
            return 0 if found == "active" else 3
        if verb == "daemon-reload":
            return 0
        if verb == "reload":
            self.reload(units[0])
            return 0
        if verb == "show" and "--value" not in rest:
            print(*(f"{name}={value}" for name, value in self.shown(units[0]).items()), sep="\n")
            return 0
        if verb == "show":
            print((self.units / f"{units[0]}.status").read_text(encoding="utf-8"))
            return 0
        for unit in units:
            if verb in {"stop", "restart"}:
                self.stop(unit)
            if verb in {"start", "restart"}:
                self.start(unit)
        return 0

    def state(self, unit: str) -> str:
        """Return how a unit is."""
        try:
            text = (self.units / unit).read_text(encoding="ascii")
        except FileNotFoundError:
            return "inactive"
        if not text.isdigit():
            return text
        return "active" if _lives(int(text)) else "failed"

    def shown(self, unit: str) -> dict[str, str]:
        """Return how a unit is and has ended: of a process that is not its own child nobody knows how."""
        state = self.state(unit)
        run = (self.units / unit).read_text(encoding="ascii") if state != "inactive" else ""
        result = {"Result": "signal", "ExecMainStatus": "9"} if state == "failed" else _GOOD
        return {"ActiveState": state, "InvocationID": run, **result}

    def start(self, unit: str) -> None:
        """Start a unit that does not run."""
        if self.state(unit) == "active":
            return
        if unit == FORWARD:
            code = self.agent("boot", "forward").returncode
            (self.units / unit).write_text("active" if code == 0 else "failed", encoding="ascii")
            return
        if unit == REWIRE:
            self.agent("boot", "wire").check_returncode()
            return
        commands = self.options["commands"]
        command = commands.get(unit) or commands[unit.partition("@")[0]]
        interface = unit.partition("@")[2].removesuffix(".service")
        argv = [each.replace("%i", interface) for each in command["argv"]]
        console = command["console"].replace("%i", interface)
        with Path(console).open("wb") as said:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "NOTIFY_SOCKET": self.notify(unit).replace("\0", "@")},
            )
        (self.units / unit).write_text(str(process.pid), encoding="ascii")
        if unit.startswith(ENGINE) or unit == RELAY:
            itself = [sys.executable, __file__, str(self.configuration), "watch", unit, str(process.pid)]
            quiet = subprocess.DEVNULL
            watcher = subprocess.Popen(itself, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
            (self.watchers / unit).write_text(str(watcher.pid), encoding="ascii")

    def watch(self, unit: str, pid: int) -> int:
        """Wait until a process has ended, and unless it was stopped do what its unit says of that."""
        while _lives(pid):
            time.sleep(0.02)
        with contextlib.suppress(FileNotFoundError):
            if (self.units / unit).read_text(encoding="ascii") == str(pid):
                self.ended(unit)
        return 0

    def ended(self, unit: str) -> None:
        """Do what the units of engines and of the relay say of their end (ExecStopPost=), however it came."""
        if unit.startswith(ENGINE):
            self.stop(FORWARD)
        self.stop(REVIVE)
        self.start(REVIVE)

    def reload(self, unit: str) -> None:
        """Have a unit read its files anew, and wait until it is ready again (sd_notify(3))."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(self.notify(unit))
            told.settimeout(30)
            os.kill(int((self.units / unit).read_text(encoding="ascii")), signal.SIGUSR2)
            said: dict[str, str] = {}
            while "READY" not in said:
                lines = told.recv(4096).decode().splitlines()
                said = dict(line.split("=", 1) for line in lines if "=" in line)
        (self.units / f"{unit}.status").write_text(said["STATUS"], encoding="utf-8")

    def notify(self, unit: str) -> str:
        """Return the name of a unit's socket: an abstract one, which is the same in every root."""
        return f"\0{self.configuration.parent}/{unit}"

    def stop(self, unit: str) -> None:
        """Stop a unit if it runs."""
        state = self.state(unit)
        if unit == FORWARD and state == "active":
            self.agent("boot", "stop-forwarding")
        elif state == "active":
            pid = int((self.units / unit).read_text(encoding="ascii"))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            while _lives(pid):
                time.sleep(0.02)
        (self.units / unit).unlink(missing_ok=True)
        if state == "active" and (unit.startswith(ENGINE) or unit == RELAY):
            self.ended(unit)

    def keep(self, command: str) -> int:
        """Run a command of the agent, again if it is killed."""
        while self.agent(command).returncode < 0:
            time.sleep(0.2)
        return 0

    def agent(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Call the agent."""
        return subprocess.run(
            [sys.executable, "-m", "appliance_image.agent", *self.options["places"], *arguments],
            cwd=self.options["code"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            check=False,
        )


_GOOD = {"Result": "success", "ExecMainStatus": "0"}


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def main() -> int:
    """Be the program, a unit that is begun again, or what looks after a unit's process."""
    manager = Manager(Path(sys.argv[1]))
    match sys.argv[2:]:
        case ["systemctl", *arguments]:
            return manager.systemctl(arguments)
        case ["watch", unit, pid]:
            return manager.watch(unit, int(pid))
        case [_, command]:
            return manager.keep(command)
    raise ValueError(sys.argv)


if __name__ == "__main__":
    sys.exit(main())
