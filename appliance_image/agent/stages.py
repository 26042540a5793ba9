"""The stages of a boot, in their order; whichever fails, the appliance drops everything and says why."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

from appliance_image.agent import daemons, kernel, links, machine, network, output, rules, services, wire
from appliance_image.agent.console import say
from appliance_image.agent.division import divide
from appliance_image.agent.errors import AgentError
from appliance_image.agent.loaded import Loaded, began, forget, forget_whole, recall, remember, remember_whole
from appliance_image.agent.records import record
from appliance_image.agent.root import Root
from netpolicy.processors import Processors


def verify(root: Root) -> str:
    """Find out which firewall this is, settle what a power cut left, and verify the bundle that is to run.

    Raises:
        AgentError: There is none that may run.

    """
    # What only this stage needs, and what the others would take as long to load as all the rest: each is a process.
    from appliance_image.agent import bundles  # noqa: PLC0415
    from appliance_image.agent.adopt import adopt  # noqa: PLC0415
    from appliance_image.agent.clock import check  # noqa: PLC0415
    from appliance_image.agent.identity import identify  # noqa: PLC0415
    from appliance_image.agent.measured import measured  # noqa: PLC0415
    from appliance_image.agent.recover import recover  # noqa: PLC0415
    from appliance_image.agent.state import State  # noqa: PLC0415

    root.run.mkdir(parents=True, exist_ok=True)
    forget(root)
    say(root, "measured", measured())
    identity = identify(root)
    state = State(root)
    state.prepare()
    recover(root, state)
    refused = adopt(root, identity, state)
    current = state.current
    if current is None:
        raise refused or AgentError("no-bundle", f"{identity.firewall} has no bundle, and no medium offers one")
    check(state)
    by = began()
    verified = bundles.take(root, state.bundle(current), identity, state)
    if verified.bundle.sha256 != current.sha256:
        raise AgentError("altered", f"{state.bundle(current)} is not the bundle that was confirmed")
    bundles.put(root, bundles.unpacked(root, verified))
    remember(root, Loaded(identity.firewall, current.serial, current.sha256, identity.interfaces), by)
    signers = ", ".join(each.subject for each in verified.operators)
    also = f"; medium refused: {refused.code}: {refused.text}" if refused else ""
    return f"{identity.firewall} serial {current.serial} sha256 {current.sha256[:16]} signed by {signers}{also}"


def lay_wires(root: Root) -> str:
    """Name the cards as the topology does, and put engines' namespaces before those that have one.

    Raises:
        AgentError: A card is missing, or the kernel refuses.

    """
    loaded = recall(root)
    output.bound(root)
    links.name_cards(root, loaded.interfaces)
    engines = daemons.engines_of(root.bundle)
    wire.lay(root, loaded.interfaces, engines)
    divide(root, engines, Processors.here())
    return f"{len(loaded.interfaces)} interfaces, {len(engines)} with an engine"


def load_rules(root: Root) -> str:
    """Load rules in place of those of the initrd, then kernel settings, then addresses and routes.

    Raises:
        AgentError: The kernel refuses one.

    """
    loaded = recall(root)
    kernel.stop_forwarding()
    rules.load_first(root, root.bundle)
    machine.load(root.bundle)
    count = kernel.write(_text(root, "sysctl.conf"))
    network.load(root, root.bundle, loaded.interfaces)
    return f"{loaded.firewall} serial {loaded.serial}: rules loaded, {count} kernel settings"


def start_engines(root: Root) -> str:
    """Start the inline engines.

    Raises:
        AgentError: One does not start.

    """
    recall(root)
    engines = daemons.engines_of(root.bundle)
    daemons.start_engines(root, root.bundle)
    return f"{', '.join(engines)} inspected" if engines else "none in this bundle"


def start_relay(root: Root) -> str:
    """Start the relay, if there is one.

    Raises:
        AgentError: It does not start.

    """
    recall(root)
    daemons.start_relay(root, root.bundle)
    return "listens" if daemons.has_relay(root.bundle) else "none in this bundle"


def forward(root: Root) -> str:
    """Begin to forward, when everything stands.

    Raises:
        AgentError: Something does not stand, or the kernel refuses.

    """
    from appliance_image.agent.state import State  # noqa: PLC0415 - see verify

    loaded = recall(root)
    for interface in daemons.engines_of(root.bundle):
        if (state := services.state(root, services.engine(interface))) != "active":
            raise AgentError("engine", f"the engine of {interface} does not run ({state})")
    begun = root.run / "begun"
    if not begun.exists():
        record(root, "boot", outcome="enforcing", firewall=loaded.firewall, serial=loaded.serial, bundle=loaded.sha256)
        State(root).keep_clock(time.time())  # later each hour: going back must not need room on the disk
    kernel.write(_text(root, "forwarding.conf"))
    if not begun.exists():
        begun.touch()
        remember_whole(root, loaded)
    return f"{loaded.firewall} serial {loaded.serial} enforcing"


STAGES: Mapping[str, Callable[[Root], str]] = {
    "verify": verify,
    "wire": lay_wires,
    "rules": load_rules,
    "engine": start_engines,
    "relay": start_relay,
    "forward": forward,
}
"""By name, in the order of a boot."""


def boot(root: Root, stage: str) -> bool:
    """Go through one stage, tell how it ended, and return whether it did well; else nothing passes any more."""
    try:
        text = STAGES[stage](root)
    except AgentError as failed:
        if stage == "forward" and failed.code == "engine" and (root.run / "begun").exists():
            # Its wire is closed as it is, and the rules stay, for when the engine has come back.
            stop_forwarding(root, f"{failed.code}: {failed}")
        else:
            close(root, stage, f"{failed.code}: {failed}")
        return False
    except Exception as failed:  # noqa: BLE001 - whatever it is, the appliance must close and say so
        close(root, stage, f"internal: {failed!r}")
        return False
    say(root, stage, text)
    return True


def drop_all(root: Root) -> list[str]:
    """Drop everything and forward nothing, and return what failed on the way.

    Where nft cannot be run, as it cannot when there is no memory or no room for a process, the lines are taken down.
    """
    failures = []
    for step in (partial(forget_whole, root), kernel.stop_forwarding, partial(rules.load_closed, root)):
        try:
            step()
        except (AgentError, OSError) as failed:
            failures.append(str(failed))
    if failures:
        try:
            links.take_down()
            failures.append("all lines are down")
        except OSError as failed:
            failures.append(f"lines stay up: {failed}")
    return failures


def close(root: Root, stage: str, reason: str) -> None:
    """Drop everything, forward nothing, and tell why. Goes as far as it can, whatever fails on the way."""
    for failed in drop_all(root):
        reason = f"{reason} (and: {failed})"
    try:
        record(root, "boot", outcome="closed", stage=stage, reason=reason)
    except AgentError as failed:
        reason = f"{reason} (not recorded: {failed})"
    say(root, stage, reason, closed=True)


def stop_forwarding(root: Root, reason: str) -> None:
    """Forward nothing any more: an engine has ended, or somebody said so."""
    kernel.stop_forwarding()
    say(root, "forward", reason, closed=True)


def _text(root: Root, name: str) -> str:
    try:
        return (root.bundle / name).read_text(encoding="utf-8")
    except OSError as missing:
        raise AgentError("unreadable", f"the bundle has no {name}: {missing}") from missing
