"""The process that keeps a lab alive for ``netpolicy lab``, and how it is started and ended."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

from conformance.lab.errors import LabError
from conformance.lab.lab import Lab
from conformance.lab.remains import Remains
from conformance.lab.resolver import write_resolver
from conformance.lab.rooted import Root, compile_for
from conformance.lab.state import ROOT, Claim, Held, LabState, Process
from conformance.lab.supervise import EVENTS, Daemon, Supervisor
from netpolicy.diagnostics import InputError
from netpolicy.topology.model import Topology

STOP_SECONDS = 15.0
"""How long a lab may take to end by itself before it is killed."""
LOG = "log"


Attend = Callable[[Lab, Path], AbstractContextManager[object]]
"""What is done in a lab while it is up; the directory, for the identities of its ends, does not exist yet."""


def unattended(_lab: Lab, _identities: Path) -> AbstractContextManager[object]:
    """Do nothing: the lab's nodes have no servers."""
    return nullcontext()


def hold(
    topology: Topology,
    build: Path | None,
    ready: Callable[[LabState], None],
    attend: Attend = unattended,
    *,
    root: Path = ROOT,
) -> None:
    """Bring a lab up, call `ready`, and keep it until SIGTERM, SIGINT or SIGHUP. Only in the main thread.

    Raises:
        LabError: It is running already, or cannot be brought up.
        InputError: The topology does not compile.

    """
    claim = Claim(topology.id, root)
    try:
        _hold(claim, topology, build, ready, attend)
    finally:
        claim.release()


def start(topology: Topology, build: Path | None, attend: Attend = unattended, *, root: Path = ROOT) -> LabState:
    """Bring a lab up in a process of its own, which outlives this one, and return when it stands.

    Raises:
        LabError: It is running already, or cannot be brought up.
        InputError: The topology does not compile.

    """
    claim = Claim(topology.id, root)
    try:
        if build is None:
            build = claim.directory / "build"
            compile_for(Root.find(), topology, build)
        reading, writing = os.pipe()
        sys.stdout.flush()
        child = os.fork()
    except BaseException:
        claim.release()
        raise
    if child == 0:
        os.close(reading)
        _become_holder(claim, topology, build, attend, os.fdopen(writing, "wb"))
    os.close(writing)
    log = claim.directory / LOG
    with os.fdopen(reading, "rb") as stream:
        answer = stream.read()
    claim.hand_over()
    if not answer:
        _, status = os.waitpid(child, 0)
        raise LabError(f"the lab's process was killed while it began (wait status {status}); its log is {log}")
    said = json.loads(answer)
    if "error" in said:
        os.waitpid(child, 0)
        raise LabError(said["error"])
    state = LabState.read(claim.directory)
    if state is None:
        raise LabError(f"the lab is up but its state has gone from {claim.directory}")
    return state


def stop(state: LabState, *, root: Path = ROOT) -> None:
    """End a lab and wait until its processes and namespaces are gone.

    Raises:
        LabError: Something still holds a namespace of it.

    """
    end = time.monotonic() + STOP_SECONDS
    with Remains.of(state) as remains:
        with suppress(ProcessLookupError):
            holder = os.pidfd_open(state.holder.pid)
            try:
                # Asked after the descriptor was opened: from here on it cannot be another process.
                if state.holder.lives():
                    signal.pidfd_send_signal(holder, signal.SIGTERM)
                    if not _ends(holder, end):
                        signal.pidfd_send_signal(holder, signal.SIGKILL)
                        _ends(holder, time.monotonic() + STOP_SECONDS)
            finally:
                os.close(holder)
        _await_empty(state, remains, time.monotonic() + STOP_SECONDS)
    with suppress(LabError):  # a new lab of this name has begun meanwhile
        Claim(state.name, root).release()


def _hold(
    claim: Claim, topology: Topology, build: Path | None, ready: Callable[[LabState], None], attend: Attend
) -> None:
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: stopped.set())
    if build is None:
        build = claim.directory / "build"
        compile_for(Root.find(), topology, build)
    write_resolver(topology, claim.directory)
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(topology, build, Root.find(), claim.directory / "engines"))
        identities = claim.directory / "identities"
        stack.enter_context(attend(lab, identities))
        state = LabState(
            name=topology.id,
            holder=Process.of(os.getpid()),
            init=Process.of(lab.reaper.pid),
            namespaces={owner: Held(each.fd, each.inode) for owner, each in lab.namespaces.items()},
            identities=str(identities),
            build=str(lab.build),
            engines={f"{firewall}/{interface}": str(each.eve) for (firewall, interface), each in lab.engines.items()},
            relays={firewall: str(each.said) for firewall, each in lab.relays.items()},
        )
        state.write(claim.directory)
        daemons: dict[str, Daemon] = {
            **{f"{firewall}/{interface}": engine for (firewall, interface), engine in lab.engines.items()},
            **{firewall: relay for firewall, relay in lab.relays.items() if relay.running},
        }
        stack.enter_context(Supervisor(daemons, claim.directory / EVENTS))
        ready(state)
        stopped.wait()


def _become_holder(claim: Claim, topology: Topology, build: Path, attend: Attend, parent: BinaryIO) -> None:
    """Be the child: leave the terminal and the caller's directory, hold the lab, never return."""
    code = 1
    try:
        os.setsid()
        os.chdir("/")
        _redirect(claim.directory / LOG)

        def ready(_state: LabState) -> None:
            parent.write(b"{}")
            parent.close()

        try:
            _hold(claim, topology, build, ready, attend)
            code = 0
        except (LabError, InputError) as refused:
            if parent.closed:
                raise
            parent.write(json.dumps({"error": str(refused)}).encode())
        except Exception:
            if parent.closed:
                raise
            parent.write(json.dumps({"error": f"the lab's process failed:\n{traceback.format_exc()}"}).encode())
        finally:
            claim.release()
            parent.close()
    except BaseException:  # noqa: BLE001 - a forked child must not return into its parent's code
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _redirect(log: Path) -> None:
    with closing(log.open("ab")) as target, Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(target.fileno(), 1)
        os.dup2(target.fileno(), 2)


def _ends(process: int, end: float) -> bool:
    """Wait for the end of a process given by pidfd; say whether it came before `end` (monotonic seconds)."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(max(0.0, end - time.monotonic()) * 1000))


def _await_empty(state: LabState, remains: Remains, end: float) -> None:
    while state.init.lives() or (holding := remains.processes()):
        if time.monotonic() > end:
            who = ", ".join(holding) if not state.init.lives() else f"{state.init.pid} (the lab's init)"
            raise LabError(f"lab '{state.name}' has ended, but processes still hold parts of it: {who}")
        time.sleep(0.02)
