"""Engines and the relay that have ended are begun again, and forwarding after them; three ends in a minute are enough.

Nothing passes meanwhile, whatever this does or fails to do: an engine is the only way between its wire and the kernel
that routes, and a relayed flow has nowhere to go but the relay's listener. Units of engines and of the relay have
:func:`revive` begun anew however they end, also in order. It goes by what is, not by what it was told: whoever ends it
half-way has done no more than to have it look again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from appliance_image.agent import daemons, ended, rules, services, wire
from appliance_image.agent.console import say
from appliance_image.agent.ended import MOST, WITHIN, Ended
from appliance_image.agent.errors import AgentError
from appliance_image.agent.loaded import Loaded, recall, runs_whole
from appliance_image.agent.lock import DAEMONS, locked
from appliance_image.agent.records import Field, record
from appliance_image.agent.root import Root

_GONE = frozenset({"failed", "inactive"})
_POLL, _ASKED_SECONDS = 0.1, 1.0


@dataclass(frozen=True, slots=True)
class _Daemon:
    """An engine, or the relay, that the bundle which runs demands."""

    interface: str | None
    """None for the relay."""

    @property
    def unit(self) -> str:
        return services.RELAY if self.interface is None else services.engine(self.interface)

    @property
    def name(self) -> str:
        return "relay" if self.interface is None else f"engine of {self.interface}"

    def stands(self, root: Root, state: str) -> bool:
        """Tell whether one whose unit is in this state does its work."""
        return state == "active" and (self.interface is None or daemons.inspects(root, self.interface))

    def begin(self, root: Root) -> None:
        """Have it begun, and do not wait."""
        if self.interface is None:
            daemons.begin_relay(root, root.bundle)
        else:
            daemons.begin_engine_again(root, root.bundle, self.interface)


def revive(root: Root, seconds: float = daemons.START_SECONDS) -> None:
    """Have all engines and the relay of the bundle that runs stand, but those that have ended too often.

    While what runs is changed it waits, and looks at what has come of that. It holds the lock of those who begin and
    end daemons, and never while it waits for one: should it hang, the service manager ends it, and begins it anew.

    Raises:
        AgentError: An end cannot be recorded, or something is not as it was verified: it stays closed.

    """
    while True:
        with locked(root, wait=True, what=DAEMONS):
            waiting = _look(root)
        if not waiting:
            return
        _await(root, waiting, seconds)


def _look(root: Root) -> list[_Daemon]:
    """Count and begin again what has ended, forward again if every engine stands, and return what is yet to stand."""
    loaded = recall(root) if runs_whole(root) else None
    if loaded is None:
        # Booting, closed for a reason, or half-way through a change whose agent has died: that has its own way back.
        return []
    known = ended.read(root)
    every = list(_demanded(root))
    waiting, standing, failures = [], [], []
    for daemon in every:
        shown = services.shown(root, daemon.unit)
        if daemon.stands(root, shown["ActiveState"]):
            standing.append(daemon)
        elif shown["ActiveState"] not in _GONE:
            waiting.append(daemon)
        else:
            try:
                if _ended(root, loaded, daemon, shown, known):
                    daemon.begin(root)
                    waiting.append(daemon)
            except AgentError as failed:  # the others do not wait for it
                failures.append(failed)
    back = [each for each in standing if each.unit in known and known[each.unit].out]
    if {each for each in every if each.interface} <= set(standing) and any(each.interface for each in back):
        _reopen(root, loaded, every)
    for daemon in back:
        record(root, "back", firewall=loaded.firewall, serial=loaded.serial, daemon=daemon.name)
        known[daemon.unit] = replace(known[daemon.unit], out=False, given_up=False)
        ended.write(root, known)
        say(root, "revive", f"{daemon.name} is back")
    if failures and not waiting:
        raise failures[0]
    return waiting


def _ended(root: Root, loaded: Loaded, daemon: _Daemon, shown: dict[str, str], known: dict[str, Ended]) -> bool:
    """Record and count the end of a daemon, once, and return whether it is to be begun again."""
    before = known.get(daemon.unit)
    if before is not None and (before.given_up or (before.invocation and before.invocation == shown["InvocationID"])):
        return not before.given_up
    found = Ended(
        daemon.name,
        1 if before is None else before.count + 1,
        (*(before.ends if before is not None else ()), time.clock_gettime(time.CLOCK_BOOTTIME))[-MOST:],
        datetime.now(UTC).isoformat(timespec="seconds"),
        _why(shown),
        shown["InvocationID"],
        out=True,
        given_up=False,
    )
    found = replace(found, given_up=found.within >= MOST)
    told: dict[str, Field] = {"firewall": loaded.firewall, "serial": loaded.serial, "daemon": daemon.name}
    # Recorded before it is counted: an agent that dies in between records it twice, never not at all.
    record(root, "ended", **told, why=found.why, count=found.count)
    if found.given_up:
        record(root, "given-up", **told, why=f"{MOST} ends in {WITHIN:.0f} s")
    known[daemon.unit] = found
    ended.write(root, known)
    say(root, "revive", f"{daemon.name} has ended: {found.why}", closed=True)
    if found.given_up:
        text = f"{daemon.name} is given up: {MOST} ends in {WITHIN:.0f} s; closed until apply, rollback or a restart"
        say(root, "revive", text, closed=True)
    return not found.given_up


def _reopen(root: Root, loaded: Loaded, every: Sequence[_Daemon]) -> None:
    """Forward again, if wires and rules are still those of the bundle and the stage of the boot finds all engines.

    Raises:
        AgentError: They are not, or it does not.

    """
    engines = [each.interface for each in every if each.interface is not None]
    if not wire.laid(root, loaded.interfaces, engines):
        raise AgentError("wire", "an interface with an engine is not behind it")
    if set(rules.tables(root)) != set(rules.OWN):
        raise AgentError("rules", "the kernel's tables are not the bundle's")
    services.begin_forwarding(root)


def _demanded(root: Root) -> Iterator[_Daemon]:
    yield from (_Daemon(each) for each in daemons.engines_of(root.bundle))
    if daemons.has_relay(root.bundle):
        yield _Daemon(None)


def _await(root: Root, waiting: Sequence[_Daemon], seconds: float) -> None:
    """Wait, without the lock, until daemons stand or have ended; what takes too long is ended."""
    begun = time.monotonic()
    for daemon in waiting:
        while not daemon.stands(root, state := services.state(root, daemon.unit)):
            # Those that were just asked for may not have left that state yet.
            if state in _GONE and time.monotonic() > begun + _ASKED_SECONDS:
                break
            if time.monotonic() > begun + seconds:
                say(root, "revive", f"{daemon.name} has not begun within {seconds:.0f} s", closed=True)
                services.stop(root, [daemon.unit])
            time.sleep(_POLL)
        if daemon.interface is None and state == "active":
            with suppress(AgentError):  # it is looked at again
                daemons.await_worker(root)


def _why(shown: dict[str, str]) -> str:
    """Return how the main process of a unit has ended, in words (org.freedesktop.systemd1(5), Result)."""
    status = shown["ExecMainStatus"]
    if shown["Result"] in {"signal", "core-dump"}:
        return f"ended by signal {status}"
    return f"ended with {status}" if shown["Result"] in {"success", "exit-code"} else shown["Result"]
