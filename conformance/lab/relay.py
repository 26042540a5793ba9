"""The relay of one firewall: HAProxy in the firewall's own namespace."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from conformance.lab.errors import LabError
from conformance.lab.listening import listeners
from conformance.lab.namespace import Namespace
from conformance.lab.rooted import Mount, Root
from netpolicy.environment import ENVIRONMENT
from netpolicy.topology.model import Address

START_SECONDS = 30.0
_POLL = 0.01
_READY, _RELOADING = "Loading success.", "Reloading HAProxy"
_HEARING = 1.0
_DIRECTORY = "/etc/haproxy"
_IDENTITY = {"chain.pem": "chain.pem", "key.pem": "chain.pem.key", "trust.pem": "trust.pem", "crl.pem": "crl.pem"}
"""The files of an end, and what the relay calls them."""
_LINE = re.compile(r"netpolicy relay=\S+ (?P<said>.*)")
_FIELD = re.compile(r'(?P<name>[a-z_]+)=(?:"(?P<quoted>[^"]*)"|(?P<plain>\S*))')


@dataclass(frozen=True, slots=True)
class RelayLine:
    """What a relay said of one connection when it had ended."""

    client: Address
    port: int
    """The client's."""
    flow: str
    fields: dict[str, str]

    @property
    def why(self) -> str:
        """How it ended, in the relay's words."""
        wanted = ("deny", "verify", "tls", "error", "onward", "state")
        return " ".join(f"{name}={self.fields.get(name) or '-'}" for name in wanted)

    @property
    def denied(self) -> str | None:
        """Why nothing passed: ``handshake``, ``onward``, or what the relay's own rules say; None if something did."""
        if self.fields["stage"] == "handshake":
            return "handshake"
        # The second letter says when it ended (haproxy.cfg, "termination state"): C, while connecting to the server.
        onward = "onward" if self.fields["state"][1] == "C" else None
        return self.fields["deny"] or onward


class Relay:
    """A running relay."""

    def __init__(self, root: Root, namespace: Namespace, configuration: Path, work: Path) -> None:
        """Prepare a relay.

        Args:
            root: Which program.
            namespace: The firewall's.
            configuration: The directory ``relay/`` of its build.
            work: A new directory for a copy of it, the firewall's identity, and what the relay says.

        """
        self.namespace = namespace
        self.files = work / "haproxy"
        """What it reads, and may be changed."""
        self.said = work / "console"
        """Its log."""
        self._root = root
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._offset = 0
        self._lines: list[RelayLine] = []
        work.mkdir(parents=True)
        shutil.copytree(configuration, self.files)
        (self.files / "tls").mkdir(mode=0o700)

    def equip(self, identity: Path) -> None:
        """Take the certificate, key, trust and revocation lists of the firewall from a directory; see :meth:`reload`.

        Raises:
            OSError: One is missing.

        """
        for source, name in _IDENTITY.items():
            fresh = self.files / "tls" / f"{name}.new"
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write((identity / source).read_bytes())
            fresh.replace(self.files / "tls" / name)

    def start(self) -> None:
        """Start it and wait until it listens.

        Raises:
            LabError: It refuses its configuration, ended, or took more than :data:`START_SECONDS`.

        """
        self.begin()
        self.await_ready(1)

    def begin(self) -> None:
        """Start it, and do not wait."""
        with self._lock:
            self._offset, self._lines = 0, []
        with self.said.open("wb") as said:
            self._process = self.namespace.popen(
                self._command("-W"),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env=ENVIRONMENT,
                start_new_session=True,
            )

    def await_ready(self, times: int) -> None:
        """Wait until it has said so many times that it listens.

        Raises:
            LabError: It ended, refused, or took more than :data:`START_SECONDS`; holds what it said.

        """
        end = time.monotonic() + START_SECONDS
        while self._console().count(_READY) < times:
            if not self.running or time.monotonic() > end:
                raise LabError(f"the relay of {self.namespace.name} does not listen:\n{self._console()[-4000:]}")
            time.sleep(_POLL)

    def check(self) -> str:
        """Return what HAProxy has to say against its configuration; empty if nothing."""
        done = self.namespace.run(self._command("-c"), timeout=START_SECONDS)
        said = (done.stdout + done.stderr).strip()
        return "" if done.returncode == 0 and said in {"", "Configuration file is valid"} else said or "refused"

    @property
    def running(self) -> bool:
        """Whether its first process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of its first process.

        Raises:
            LabError: It does not run.

        """
        if self._process is None or not self.running:
            raise LabError(f"the relay of {self.namespace.name} does not run")
        return self._process.pid

    @property
    def listening(self) -> frozenset[int]:
        """Its processes that take connections."""
        if self._process is None:
            return frozenset()
        return frozenset(int(each.name) for each in self._processes(self._process.pid) if _listens(each))

    def reload(self) -> None:
        """Have it read its files anew: connections that live go on with the old ones, no new one meets them.

        Raises:
            LabError: It does not run, or refused them.

        """
        if self._process is None or not self.running:
            raise LabError(f"the relay of {self.namespace.name} does not run")
        old = self.listening
        times, asked = (self._console().count(said) for said in (_READY, _RELOADING))
        end = time.monotonic() + START_SECONDS
        while self._console().count(_RELOADING) == asked:
            # One that has just begun to listen may not hear a signal yet.
            self._process.send_signal(signal.SIGUSR2)
            heard = time.monotonic() + _HEARING
            while self._console().count(_RELOADING) == asked and time.monotonic() < heard:
                time.sleep(_POLL)
            if not self.running or time.monotonic() > end:
                raise LabError(f"the relay of {self.namespace.name} does not reload:\n{self._console()[-4000:]}")
        self.await_ready(times + 1)
        # Old and new workers share their sockets, and an old one lets go when it is scheduled (measured: up to 24 ms
        # after the relay has said that all is done).
        self._await(lambda: old.isdisjoint(self.listening), "has been reloaded, and an old worker still listens")

    def kill(self) -> None:
        """End all of it at once, as a crash would (SIGKILL), and wait until it is gone."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):  # its first process may be gone, and workers still there
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            group = self._process.pid
            # Until its workers are gone as well, their sockets still take connections.
            self._await(lambda: not self._processes(group), "has been killed, and some of it is still there")

    @staticmethod
    def _processes(group: int) -> list[Path]:
        """Return the directories in /proc of what is in a process group, its first process included."""
        return [each for each in Path("/proc").iterdir() if each.name.isdigit() and _in_group(each, group)]

    def _await(self, reached: Callable[[], bool], otherwise: str) -> None:
        """Wait for something.

        Raises:
            LabError: It is not so after :data:`START_SECONDS`.

        """
        end = time.monotonic() + START_SECONDS
        while not reached():
            if time.monotonic() > end:
                raise LabError(f"the relay of {self.namespace.name} {otherwise}")
            time.sleep(_POLL)

    def stop(self) -> None:
        """End it in order, and at once if that takes long."""
        if self._process is not None and self.running:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(START_SECONDS)
            self.kill()

    def lines(self) -> list[RelayLine]:
        """Return what it has said of connections since it was started."""
        with self._lock:
            if self.said.exists():
                self._read_on()
            return list(self._lines)

    def await_line(self, since: int, wanted: Callable[[RelayLine], bool], seconds: float) -> RelayLine | None:
        """Return the first line from number `since` on that is wanted, as soon as it comes; None after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            found = next(filter(wanted, self.lines()[since:]), None)
            if found is not None or time.monotonic() > deadline:
                return found
            time.sleep(_POLL)

    def _read_on(self) -> None:
        with self.said.open("rb") as stream:
            stream.seek(self._offset)
            for line in stream:
                if not line.endswith(b"\n"):  # the last one may be half written
                    return
                self._offset += len(line)
                found = _LINE.search(line.decode(errors="replace"))
                if found is not None:
                    self._lines.append(_read(found["said"]))

    def _command(self, mode: str) -> list[str]:
        argv = ["/usr/sbin/haproxy", mode, "-f", f"{_DIRECTORY}/haproxy.cfg"]
        return self._root.command(argv, (Mount(self.files, _DIRECTORY),))

    def _console(self) -> str:
        return self.said.read_text(encoding="utf-8", errors="replace")


def _in_group(process: Path, group: int) -> bool:
    """Tell whether a process is of a group, and not only waits to be reaped."""
    try:
        state, _, its_group = (process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[:3]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return int(its_group) == group and state not in {"Z", "X"}


def _listens(process: Path) -> bool:
    """Tell whether a process holds a TCP socket that takes connections (proc_pid_fd(5))."""
    held: set[str] = set()
    try:
        listening = {f"socket:[{each.inode}]" for each in listeners(int(process.name), 4, 6)}
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since
                held.add(str(descriptor.readlink()))
    except OSError as ended:
        if ended.errno not in {errno.ENOENT, errno.ESRCH, errno.EINVAL}:  # the last: it waits to be reaped
            raise
        return False
    return not held.isdisjoint(listening)


def _read(said: str) -> RelayLine:
    fields = {each["name"]: each["quoted"] or each["plain"] or "" for each in _FIELD.finditer(said)}
    address, _, port = fields["client"].rpartition(":")
    return RelayLine(ip_address(address), int(port), fields["flow"].rstrip("~"), fields)
