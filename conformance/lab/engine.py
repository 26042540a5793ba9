"""The inline engine of one interface of a firewall: Suricata between the wire and the kernel that routes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conformance.lab.errors import LabError
from conformance.lab.namespace import Namespace
from conformance.lab.rooted import Mount, Root
from netpolicy.environment import ENVIRONMENT

START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_ANSWER_SECONDS = 30.0
_POLL = 0.02
_STARTED = "Engine started"
_USER = "suricata"
_PROTOCOL = "0.2"
"""Of the command socket (docs.suricata.io, "Interacting via Unix Socket")."""


class Engine:
    """A running engine. Its namespace holds the interface's wire and one end of a pair to the firewall's namespace."""

    eve: Path
    """Its events, one JSON object a line."""

    def __init__(self, root: Root, namespace: Namespace, interface: str, configuration: Path, work: Path) -> None:
        """Prepare an engine.

        Args:
            root: Which program.
            namespace: Where it runs.
            interface: Of the firewall.
            configuration: The directory ``suricata/`` of the firewall's build.
            work: A new directory for its socket and logs.

        """
        self.interface = interface
        self.namespace = namespace
        self._root = root
        self._configuration = configuration
        self._log, self._run = work / "log", work / "run"
        self.eve = self._log / "eve.json"
        self._said = work / "console"
        self._process: subprocess.Popen[bytes] | None = None
        owner = root.user(_USER)
        for directory in (self._log, self._run):
            directory.mkdir(parents=True, mode=0o750)
            os.chown(directory, *owner)

    def start(self) -> None:
        """Start it and wait until it inspects.

        Raises:
            LabError: It ended, or took more than :data:`START_SECONDS`; holds what it said.

        """
        self.begin()
        self.await_started()

    def begin(self) -> None:
        """Start it, and do not wait."""
        for stale in self._run.iterdir():
            stale.unlink()
        argv = [
            "/usr/bin/suricata",
            *("-c", "/etc/suricata/suricata.yaml", "--include", f"/etc/suricata/engine-{self.interface}.yaml"),
            *("--user", _USER, "--group", _USER, "--init-errors-fatal", "--af-packet"),
        ]
        mounts = (
            Mount(self._configuration, "/etc/suricata"),
            Mount(self._log, "/var/log/suricata", writable=True),
            Mount(self._run, "/run/suricata", writable=True),
        )
        with self._said.open("wb") as said:
            self._process = self.namespace.popen(
                self._root.command(argv, mounts),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env=ENVIRONMENT,
                start_new_session=True,
            )

    def await_started(self) -> None:
        """Wait until it inspects what it copies.

        Raises:
            LabError: It ended, or took more than :data:`START_SECONDS`; holds what it said.

        """
        end = time.monotonic() + START_SECONDS
        while _STARTED not in self._said.read_text(encoding="utf-8", errors="replace"):
            if not self.running or time.monotonic() > end:
                raise LabError(f"the engine of {self.namespace.name} has not started:\n{self._last_words()}")
            time.sleep(_POLL)

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of its process.

        Raises:
            LabError: It does not run.

        """
        if self._process is None or not self.running:
            raise LabError(f"the engine of {self.namespace.name} does not run")
        return self._process.pid

    def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL), and wait until it is gone."""
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def stop(self) -> None:
        """End it in order."""
        if self._process is not None and self.running:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()

    def reload(self) -> None:
        """Have it read its rules and lists anew; connections that live go on.

        Raises:
            LabError: It refused them, and goes on with those it had.

        """
        self.command("reload-rules")

    def command(self, name: str, **arguments: str) -> Any:
        """Return the answer of the engine to a command.

        Raises:
            LabError: It refused, or does not answer.

        """
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(_ANSWER_SECONDS)
                connection.connect(str(self._run / "command.socket"))
                _ask(connection, {"version": _PROTOCOL})
                return _ask(connection, {"command": name, **({"arguments": arguments} if arguments else {})})
        except (OSError, ValueError) as failed:
            raise LabError(f"the engine of {self.namespace.name} does not answer {name}: {failed}") from failed

    def events(self, *, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield its events so far from a byte offset of :attr:`eve` on, each with the offset after it."""
        if not self.eve.exists():
            return
        with self.eve.open("rb") as stream:
            stream.seek(offset)
            for line in stream:
                if not line.endswith(b"\n"):  # half written; the rest would be read as another line
                    return
                offset += len(line)
                yield json.loads(line), offset

    def _last_words(self) -> str:
        return self._said.read_text(encoding="utf-8", errors="replace")[-4000:]


def copy_configuration(source: Path, target: Path) -> None:
    """Copy the engine's files of a build, so that lists can be filled without changing the build.

    Raises:
        LabError: The build has none.

    """
    if not (source / "suricata.yaml").is_file():
        raise LabError(f"{source / 'suricata.yaml'} is missing")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(target)
    shutil.copytree(source, target)


def _ask(connection: socket.socket, question: dict[str, Any]) -> Any:
    connection.sendall(json.dumps(question).encode() + b"\n")
    received = bytearray()
    while not received.endswith(b"\n"):
        part = connection.recv(65536)
        if not part:
            break
        received += part
    answer = json.loads(received)
    if answer.get("return") != "OK":
        raise ValueError(f"it says {answer.get('message', answer)}")
    return answer.get("message")
