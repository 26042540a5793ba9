"""Apply, confirm, roll back: a bundle is on trial until somebody who still reaches the firewall confirms it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex

from appliance_image.agent import bundles, daemons, ended, machine, rules, services
from appliance_image.agent.console import say
from appliance_image.agent.ends import check_root
from appliance_image.agent.errors import AgentError
from appliance_image.agent.identity import Identity, identify
from appliance_image.agent.loaded import Loaded, recall
from appliance_image.agent.lock import DAEMONS, locked
from appliance_image.agent.records import record, reserve
from appliance_image.agent.recover import finish
from appliance_image.agent.root import Root
from appliance_image.agent.stages import close
from appliance_image.agent.state import Pending, Phase, Pointer, State
from appliance_image.agent.switch import switch
from appliance_image.agent.validity import CHAIN
from appliance_image.bundle import Verified

SHORTEST, LONGEST = 5.0, 3600.0
"""Seconds of a trial."""
_RECORDS = 8
_BACK_SECONDS = 60.0
"""After so long a rollback is taken back if the agent has died meanwhile."""


@dataclass(frozen=True, slots=True)
class Done:
    """What an operation has come to."""

    operation: str
    firewall: str
    serial: int
    sha256: str
    transaction: str
    confirm_seconds: float | None
    """Until then it must be confirmed; None if nothing is to be confirmed."""
    details: tuple[str, ...]


def apply(root: Root, source: Path, *, confirm: float) -> Done:
    """Put a bundle on trial: it runs, and is gone again after `confirm` seconds or a restart, unless confirmed.

    Raises:
        AgentError: It was refused, or did not come to run whole; what ran before runs.

    """
    if not SHORTEST <= confirm <= LONGEST:
        raise AgentError("call", f"a trial takes {SHORTEST:.0f} to {LONGEST:.0f} seconds, not {confirm:g}")
    with locked(root, wait=False):
        running, state, identity = _begin(root)
        if state.pending is not None:
            raise AgentError("pending", "another bundle is on trial: confirm it or roll it back first")
        current = state.current
        try:
            verified = bundles.take(root, source, identity, state)
            pointer = bundles.pointer_to(verified)
            place = _checked(root, verified, current)
        except AgentError as refused:
            record(root, "refused", code=refused.code, reason=refused.text, source="apply")
            raise
        state.stage(verified.bundle.content, pointer)
        pending = Pending(Phase.TRIAL, token_hex(8), "apply", pointer, current, _now() + confirm)
        details = _try(root, state, pending, place=place, running=running, verified=verified)
        _extend(state, pending, confirm)
        return _done("apply", identity, pending, confirm, details)


def confirm(root: Root) -> Done:
    """Make the bundle on trial the one that runs from now on.

    Raises:
        AgentError: There is none, its time is over, or this cannot be put on the disk: then it is still on trial.

    """
    with locked(root, wait=True):
        _, state, identity = _begin(root)
        pending = state.pending
        if pending is None:
            raise AgentError("nothing", "no bundle is on trial")
        if _now() >= pending.deadline:
            raise AgentError("too-late", "the time to confirm is over: it is being rolled back")
        verified = bundles.take(root, state.bundle(pending.current), identity, state)
        _commit(root, state, pending, verified)
        with locked(root, wait=True, what=DAEMONS):
            ended.forget(root)
        # What was given up while it was on trial is tried again.
        services.revive_soon(root)
        return _done("confirm", identity, pending, None, ())


def rollback(root: Root, reason: str = "asked for") -> Done:
    """Go back: from a bundle on trial to the one that was confirmed; else from that to the one before.

    Raises:
        AgentError: There is none to go back to, or it does not come to run: then nothing passes any more.

    """
    with locked(root, wait=True):
        running, state, identity = _begin(root)
        pending = state.pending
        if pending is not None:
            details = restore(root, state, identity, pending, reason)
            services.expire_never(root)
            return _done("rollback", identity, replace(pending, current=_pointer(state)), None, details)
        current, previous = state.current, state.previous
        if previous is None:
            raise AgentError("nothing", "there is no bundle to go back to")
        verified = bundles.take(root, state.bundle(previous), identity, state)
        place = bundles.unpacked(root, verified)
        back = Pending(Phase.TRIAL, token_hex(8), "rollback", previous, current, _now() + _BACK_SECONDS)
        details = _try(root, state, back, place=place, running=running, verified=verified)
        _commit(root, state, back, verified)
        return _done("rollback", identity, back, None, details)


def expire(root: Root) -> bool:
    """Wait until the time of a trial is over, and go back; return whether that was so. Runs in a unit of its own.

    Raises:
        AgentError: What was confirmed does not come to run: then nothing passes any more.

    """
    while True:
        # Whoever is at work holds the lock, and if it dies the kernel lets go.
        with locked(root, wait=True):
            state = State(root)
            finish(root, state)
            pending = state.pending
            if pending is None:
                return False
            left = pending.deadline - _now()
            if left <= 0:
                restore(root, state, identify(root), pending, "not confirmed in time")
                return True
        time.sleep(left)


def restore(root: Root, state: State, identity: Identity, pending: Pending, reason: str) -> tuple[str, ...]:
    """Have the confirmed bundle run again, whole, and forget the trial.

    Raises:
        AgentError: It does not come to run: everything is dropped. The trial is forgotten all the same.

    """
    pointer = _pointer(state)
    failure: AgentError | None = None
    details: tuple[str, ...] = ()
    try:
        verified = bundles.take(root, state.bundle(pointer), identity, state)
        loaded = Loaded(identity.firewall, pointer.serial, pointer.sha256, identity.interfaces)
        details = tuple(switch(root, bundles.unpacked(root, verified), loaded))
    except (AgentError, OSError) as failed:
        failure = failed if isinstance(failed, AgentError) else AgentError("internal", str(failed))
        close(root, "rollback", f"{failure.code}: {failure}")
    try:
        record(
            root,
            "rollback",
            reason=reason,
            transaction=pending.transaction,
            serial=pointer.serial,
            bundle=pointer.sha256,
            gave_up=pending.current.serial,
            outcome="closed" if failure else "running",
        )
    except AgentError as unrecorded:
        # To go back is safe, and to stay on trial is not: it is told where it can be told.
        say(root, "rollback", f"not recorded: {unrecorded}", closed=failure is not None)
    state.end()
    state.tidy()
    if failure is not None:
        raise failure
    return details


def check(root: Root, place: Path) -> None:
    """Have nft, Suricata and HAProxy say whether they would take a bundle, and see whether there is room for it.

    Raises:
        AgentError: One would not.

    """
    machine.check(place)
    rules.check(root, place)
    daemons.check_engines(root, place)
    _check_identity(root, place)
    daemons.check_relay(root, place)


def _check_identity(root: Root, place: Path) -> None:
    """Hold this firewall's certificate to the roots of a bundle with a relay, which would be trusted alone."""
    chain = root.identity / CHAIN
    if daemons.has_relay(place) and chain.is_file():
        check_root(chain.read_bytes(), bundles.authorities_of(place))


def _checked(root: Root, verified: Verified, current: Pointer | None) -> Path:
    """Return the files of a bundle that is not the one that runs, and that would be taken."""
    pointer = bundles.pointer_to(verified)
    if pointer == current:
        raise AgentError("same", f"this very bundle, serial {pointer.serial}, runs already")
    place = bundles.unpacked(root, verified)
    check(root, place)
    return place


def _begin(root: Root) -> tuple[Loaded, State, Identity]:
    """Return what runs, on an appliance that has come up, with room for records, and nothing half decided."""
    running = recall(root)
    state = State(root)
    state.prepare()
    reserve(root, _RECORDS)
    finish(root, state)
    return running, state, identify(root)


def _try(
    root: Root, state: State, pending: Pending, *, place: Path, running: Loaded, verified: Verified
) -> tuple[str, ...]:
    """Put a change on the disk as a trial, record it, and switch; go back if that fails."""
    state.begin(pending)
    identity = identify(root)
    try:
        record(
            root,
            "apply" if pending.event == "apply" else "rollback-begun",
            transaction=pending.transaction,
            serial=pending.current.serial,
            bundle=pending.current.sha256,
            before=running.serial,
            operators=[each.subject for each in verified.operators],
        )
        services.expire_later(root)
        loaded = Loaded(identity.firewall, pending.current.serial, pending.current.sha256, identity.interfaces)
        return tuple(switch(root, place, loaded))
    except (AgentError, OSError) as failed:
        restore(root, state, identity, pending, f"did not come to run: {failed}")
        services.expire_never(root)
        if isinstance(failed, AgentError):
            raise
        raise AgentError("internal", str(failed)) from failed


def _extend(state: State, pending: Pending, seconds: float) -> None:
    """Count the time to confirm from now on, when everything stands."""
    state.begin(replace(pending, deadline=_now() + seconds))


def _commit(root: Root, state: State, pending: Pending, verified: Verified) -> None:
    state.commit(pending, verified.crl)
    finish(root, state)
    services.expire_never(root)


def _pointer(state: State) -> Pointer:
    current = state.current
    if current is None:
        raise AgentError("state", "no bundle was ever confirmed")
    return current


def _done(
    operation: str, identity: Identity, pending: Pending, seconds: float | None, details: tuple[str, ...]
) -> Done:
    pointer = pending.current
    return Done(operation, identity.firewall, pointer.serial, pointer.sha256, pending.transaction, seconds, details)


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
