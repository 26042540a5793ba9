"""An appliance without a machine: the agent in namespaces of its own, between two ends; its state directory stays."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from appliance_image.agent import stages
from appliance_image.agent.namespaces import call_in
from appliance_image.agent.offload import switch_off
from appliance_image.agent.root import Root
from appliance_image.bundle import Bundle
from conformance.lab.rooted import Mount
from conformance.lab.rooted import Root as Engines
from tests.agent.making import ALPHA, FIREWALL, GAMMA, INTERFACES, LAN, MANAGER, NETWORK, PORT, WAN, Operator

Record = dict[str, Any]

CODE = Path(__file__).parents[2]
_MANAGER = Path(__file__).with_name("manager.py")
_TOWN, _FAR = "02:77:00:00:01:0a", "02:77:00:00:02:02"
FORBIDDEN_PORT = 4444
QUESTION = b"JUKI 0123456789abcdef"
"""Begins as the prologue of every permitted application does."""


class World:
    """The appliance, the end ``town`` before it and the end ``far`` behind it."""

    def __init__(self, place: Path, operator: Operator) -> None:
        self.place = place
        self.operator = operator
        self.root = Root(
            state=place / "state",
            run=place / "run",
            share=operator.trust.directory.parent,
            console=place / "console",
            mounted=False,
            units=place / "changed",
            path=f"{place / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin",
            wire=f"t{os.getpid() % 10000}-",
        )
        keep = [sys.executable, str(_MANAGER), str(place / "manager.json"), "keep"]
        self.commands: dict[str, object] = {
            "netpolicy-expire.service": {"argv": [*keep, "expire"], "console": str(place / "expire-console")},
            "netpolicy-revive.service": {"argv": [*keep, "revive"], "console": str(place / "revive-console")},
        }
        self.inspects = False
        """Whether engines run, from the root that ``make setup`` makes."""
        for directory in (self.root.state, place / "bin"):
            directory.mkdir(parents=True, exist_ok=True)
        inventory = {
            "network": NETWORK,
            "firewalls": {
                FIREWALL: {"managed_by": MANAGER, "signatures": 1, "interfaces": INTERFACES},
                "core": {"managed_by": MANAGER, "signatures": 1, "interfaces": {"wan": "02:77:00:00:02:99"}},
            },
        }
        self.root.inventory.write_text(json.dumps(inventory))
        self.holders: dict[str, subprocess.Popen[bytes]] = {}

    def power_on(self) -> None:
        """Have a machine that was just switched on: nothing in memory, no rules, cards with names of the kernel."""
        self.power_off()
        shutil.rmtree(self.root.run, ignore_errors=True)
        self.root.console.write_text("")
        self._write_programs()
        for name in ("appliance", "town", "far"):
            options = ["--net", "--mount"] if name == "appliance" else ["--net"]
            self.holders[name] = subprocess.Popen(["unshare", *options, "sleep", "infinity"])
        own = Path("/proc/self/ns/net").stat().st_ino
        for name in self.holders:
            while self.namespace(name).stat().st_ino == own:
                time.sleep(0.005)
        script = f"""
            link add eth1 address {LAN} type veth peer name up0 address {_TOWN} netns {self.holders["town"].pid}
            link add eth0 address {WAN} type veth peer name up0 address {_FAR} netns {self.holders["far"].pid}
        """
        self.ip("appliance", script)
        self.ip(
            "town",
            f"""
            link set lo up
            link set up0 up
            address add {ALPHA}/24 dev up0
            route add default via 10.77.1.1
            neighbour replace 10.77.1.1 lladdr {LAN} dev up0 nud permanent
            """,
        )
        self.ip(
            "far",
            f"""
            link set lo up
            link set up0 up
            address add 10.77.2.2/24 dev up0
            address add {GAMMA}/32 dev lo
            route add default via 10.77.2.1
            neighbour replace 10.77.2.1 lladdr {WAN} dev up0 nud permanent
            """,
        )
        for name in ("town", "far"):
            call_in(self.namespace(name), lambda: switch_off(["up0"]))
        self.run_in("appliance", ["mount", "--make-rprivate", "/"])
        Path("/run/netns").mkdir(exist_ok=True)
        self.run_in("appliance", ["mount", "-t", "tmpfs", "none", "/run/netns"])
        self.run_in("appliance", ["mount", "-t", "sysfs", "none", "/sys"])
        if self.inspects:
            self._make_mount_points()

    def power_off(self) -> None:
        """Lose all that is in memory."""
        units = self.place / "units"
        # First those who look after the others.
        for unit in sorted(units.rglob("*"), key=lambda path: path.parent == units):
            text = unit.read_text() if unit.is_file() else ""
            if text.isdigit():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(int(text), signal.SIGKILL)
        shutil.rmtree(units, ignore_errors=True)
        for holder in self.holders.values():
            holder.kill()
            holder.wait()
        self.holders.clear()

    def namespace(self, name: str) -> Path:
        """Return a network namespace."""
        return Path(f"/proc/{self.holders[name].pid}/ns/net")

    def ip(self, name: str, script: str) -> None:
        """Run a batch of ip in a namespace."""
        self.run_in(name, ["ip", "-batch", "-"], given=script)

    def run_in(self, name: str, argv: list[str], given: str = "") -> str:
        """Run a program in a namespace."""
        options = ["--net", "--mount"] if name == "appliance" else ["--net"]
        done = subprocess.run(
            ["nsenter", f"--target={self.holders[name].pid}", *options, *argv],
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def agent(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Call the agent as a program."""
        return subprocess.run(
            [
                *("nsenter", f"--target={self.holders['appliance'].pid}", "--net", "--mount", f"--wdns={CODE}"),
                *(sys.executable, "-m", "appliance_image.agent", *self._places(), *arguments),
            ],
            capture_output=True,
            text=True,
            check=False,
        )

    def fork(self, function: Callable[[Root], int]) -> int:
        """Call a function inside the appliance, in its own process, and return its exit code, or minus a signal."""
        child = os.fork()
        if child == 0:
            code = 99
            try:
                os.setsid()
                quiet = os.open(self.place / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(quiet, 1)
                os.dup2(quiet, 2)
                sys.stdout = sys.stderr = os.fdopen(quiet, "w", encoding="utf-8")
                libc = ctypes.CDLL(None, use_errno=True)
                for kind in ("net", "mnt"):
                    descriptor = os.open(f"/proc/{self.holders['appliance'].pid}/ns/{kind}", os.O_RDONLY)
                    assert libc.setns(descriptor, 0) == 0, os.strerror(ctypes.get_errno())
                code = function(self.root)
            except BaseException as failed:  # noqa: BLE001 - told by the exit code, and in the file
                print(repr(failed), file=sys.stderr, flush=True)
                code = 98
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)

    def boot(self) -> bool:
        """Go through all stages until one fails, as the units do; return whether none did."""
        return self.fork(_boot) == 0

    def install(self, bundle: Bundle) -> None:
        """Have a bundle on the state partition as the confirmed one, as a factory would."""
        medium = self.place / "medium"
        shutil.rmtree(medium, ignore_errors=True)
        medium.mkdir()
        (medium / "one.bundle").write_bytes(bundle.content)
        assert self.fork(lambda root: _adopt(root, medium)) == 0, (self.place / "said").read_text()

    def write(self, bundle: Bundle, name: str = "next.bundle") -> Path:
        """Write a bundle to a file."""
        path = self.place / name
        path.write_bytes(bundle.content)
        return path

    def console(self) -> list[str]:
        """Return the lines on the console."""
        return self.root.console.read_text().splitlines()

    def records(self) -> list[Record]:
        """Return the journal's records, in order."""
        return records_of(self.root.journal)

    def exchange(self, port: int = PORT, seconds: float = 5.0) -> bool:
        """Tell whether a connection from one end to the other is made and answers."""
        with self.answering(port):
            return bool(call_in(self.namespace("town"), lambda: _ask(port, seconds)))

    def is_reachable(self, port: int = PORT, seconds: float = 5.0) -> bool:
        """Tell whether a connection from one end to the other is made, whatever becomes of what it carries."""
        with self.answering(port):
            try:
                self.connect(port, seconds).close()
            except OSError:
                return False
            return True

    @contextmanager
    def answering(self, port: int, answer: Callable[[bytes], None] = lambda _: None) -> Iterator[None]:
        """Answer on a port of the far end while inside."""

        def listen() -> socket.socket:
            return socket.create_server((GAMMA, port), backlog=8)

        server = call_in(self.namespace("far"), listen)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with contextlib.suppress(OSError), connection:
                        connection.settimeout(60)  # longer than an apply takes on a busy machine
                        while said := connection.recv(100):
                            answer(said)
                            connection.sendall(said)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            server.close()
            thread.join(2)

    def connect(self, port: int = PORT, seconds: float = 5.0) -> socket.socket:
        """Return a connection from one end to the other."""
        return call_in(self.namespace("town"), lambda: socket.create_connection((GAMMA, port), timeout=seconds))

    def _places(self) -> list[str]:
        root = self.root
        return [
            *("--state", str(root.state), "--run-dir", str(root.run), "--share", str(root.share)),
            *("--console", str(root.console), "--path", root.path, "--wire", root.wire, "--units", str(root.units)),
        ]

    def equip(self, engines: Engines) -> None:
        """Have engines from a root; before it is switched on."""
        self.inspects = True
        engine = self.root.engine("%i")
        mounts = (
            Mount(self.root.run / "suricata", "/etc/suricata"),
            Mount(engine / "log", "/var/log/suricata", writable=True),
            Mount(engine / "run", "/run/suricata", writable=True),
        )
        argv = [
            *("/usr/bin/suricata", "-c", "/etc/suricata/suricata.yaml", "--include", "/etc/suricata/engine-%i.yaml"),
            *("--init-errors-fatal", "--af-packet"),
        ]
        inside = ["nsenter", f"--net={self.root.namespace('%i')}", *engines.command(argv, mounts)]
        self.commands["netpolicy-engine"] = {"argv": inside, "console": str(engine / "console")}
        relay = engines.command(
            ["/usr/sbin/haproxy", "-Ws", "-f", "/etc/haproxy/haproxy.cfg"],
            (Mount(self.root.run / "relay", "/etc/haproxy"),),
        )
        self.commands["netpolicy-haproxy.service"] = {"argv": relay, "console": str(self.place / "relay-console")}
        seen = (
            Mount(Path("/etc/suricata"), "/etc/suricata"),
            Mount(Path("/var/log/suricata"), "/var/log/suricata", writable=True),
        )
        self._wrap("suricata", engines.command(["/usr/bin/suricata"], seen))
        self._wrap("haproxy", engines.command(["/usr/sbin/haproxy"], (Mount(Path("/etc/haproxy"), "/etc/haproxy"),)))

    def _wrap(self, name: str, command: list[str]) -> None:
        """Have a program that runs in the root."""
        wrapper = self.place / "bin" / name
        wrapper.write_text(
            f"#!{sys.executable}\nimport os, sys\ncommand = {command!r}\n"
            "os.execv(command[0], [*command, *sys.argv[1:]])\n"
        )
        wrapper.chmod(0o755)

    def _make_mount_points(self) -> None:
        """Have the directories of the daemons' packages, which this machine need not have, for the appliance alone."""
        for place, names in (("/etc", ("suricata", "haproxy")), ("/var/log", ("suricata",))):
            layers = self.place / "layers" / place.strip("/").replace("/", "-")
            for each in (*(layers / "upper" / name for name in names), layers / "work"):
                each.mkdir(parents=True, exist_ok=True)
            options = f"lowerdir={place},upperdir={layers / 'upper'},workdir={layers / 'work'}"
            self.run_in("appliance", ["mount", "-t", "overlay", "overlay", "-o", options, place])

    def _write_programs(self) -> None:
        configuration = self.place / "manager.json"
        options = {"places": self._places(), "code": str(CODE), "commands": self.commands}
        configuration.write_text(json.dumps(options))
        path = self.place / "bin" / "systemctl"
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {_MANAGER} {configuration} systemctl "$@"\n')
        path.chmod(0o755)


def records_of(journal: Path) -> list[Record]:
    """Return the records of a journal, in order."""
    found: list[Record] = []
    for path in sorted(journal.glob("*.jsonl")):
        found += [json.loads(line) for line in path.read_text().splitlines() if line.strip("\0 ")]
    return found


def _boot(root: Root) -> int:
    for stage in stages.STAGES:
        if stage == "forward":
            from appliance_image.agent import services

            services.start(root, [services.FORWARD])
            return 0 if services.state(root, services.FORWARD) == "active" else 1
        if not stages.boot(root, stage):
            return 1
    return 0


def _adopt(root: Root, medium: Path) -> int:
    from appliance_image.agent.adopt import adopt_from
    from appliance_image.agent.identity import identify
    from appliance_image.agent.state import State

    state = State(root)
    state.prepare()
    refused = adopt_from(root, medium, identify(root), state)
    if refused is not None:
        raise refused
    return 0


def _ask(port: int, seconds: float) -> bool:
    try:
        with socket.create_connection((GAMMA, port), timeout=seconds) as connection:
            connection.sendall(QUESTION)
            return connection.recv(len(QUESTION)) == QUESTION
    except OSError:
        return False
