"""From whatever runs to a bundle, while packets come: never open on the way, and proven at the end."""

from __future__ import annotations

from pathlib import Path

from appliance_image.agent import (
    bundles,
    daemons,
    ended,
    kernel,
    live,
    machine,
    network,
    permits,
    rules,
    services,
    wire,
)
from appliance_image.agent.errors import AgentError
from appliance_image.agent.loaded import Loaded, forget_whole, recall, remember_whole, replace
from appliance_image.agent.lock import DAEMONS, locked
from appliance_image.agent.root import Root
from appliance_image.bundle.authorities import TRUST
from netpolicy.proof.settings import differing, wanted_settings


def switch(root: Root, place: Path, loaded: Loaded) -> list[str]:
    """Have a bundle run, whatever ran before or was left halfway, and return what was done, in words.

    While more changes than rules and the relay, nothing is forwarded. It ends with the proof that the kernel's rules
    are the bundle's, and with the end of connections that they do not permit.

    Args:
        root: Where everything is.
        place: The bundle's files.
        loaded: What it is.

    Raises:
        AgentError: It does not run whole. Nothing passes that neither the old rules nor the new ones permit.

    """
    with locked(root, wait=True, what=DAEMONS):
        forget_whole(root)
        done = _switch(root, place, loaded)
        ended.forget(root)
        remember_whole(root, loaded)
    return done


def _switch(root: Root, place: Path, loaded: Loaded) -> list[str]:
    done: list[str] = []
    # Whatever has begun before the clock was set, as the wait for the end of a trial, must not open again.
    recall(root)
    machine.load(place)
    engines = daemons.engines_of(place)
    settled = _settled(root, place, loaded)
    engines_stand = daemons.engines_stand(root, place)
    calm = settled and engines_stand
    if not calm:
        services.stop(root, [services.FORWARD])
        kernel.stop_forwarding()
        done.append("forwarding stopped meanwhile")
    trusted = _trust(root.bundle)
    rules.replace(root, place)
    bundles.put(root, place)
    replace(root, loaded)
    if not calm:
        surplus = [each for each in loaded.interfaces if each not in engines and root.namespace(each).exists()]
        daemons.stop_engines(root, surplus)
        if not wire.laid(root, loaded.interfaces, engines):
            # A unit of its own: the namespaces that it makes must be seen by the service manager.
            services.run_once(root, services.REWIRE)
            rules.load_frames(root, place)
        kernel.write((place / "sysctl.conf").read_text(encoding="utf-8"))
        network.load(root, place, loaded.interfaces)
    if not engines_stand:
        daemons.start_engines(root, place)
        done.append(f"engines started: {', '.join(engines)}")
    if not daemons.relay_stands(root, place):
        daemons.start_relay(root, place)
        done.append("relay started")
    if (place / services.MANAGEMENT_FILE).is_file() and _trust(place) != trusted:
        # Its files are copies, which the service manager made when it began.
        services.restart(root, [services.MANAGEMENT])
        done.append("management started")
    done.append(prove(place, loaded))
    if not calm or not kernel.forwards():
        services.begin_forwarding(root)
    return done


def prove(place: Path, loaded: Loaded) -> str:
    """Prove that the kernel's rules are a bundle's, and end connections that they do not permit.

    Raises:
        AgentError: They are not; holds packets that fare otherwise.

    """
    found = live.compare(loaded.firewall, place, loaded.interfaces)
    if not found.equal or found.ruleset is None:
        raise AgentError("not-equal", f"the kernel's rules are not the bundle's: {'; '.join(found.packets[:3])}")
    ended = permits.end_unpermitted(found.ruleset, loaded.interfaces)
    how = "read back identical" if found.identical else "proven to do the same with every packet"
    return f"rules {how}; connections ended: {ended}"


def _trust(files: Path) -> bytes:
    """Return the roots that a bundle trusts; nothing if it has none."""
    path = files / TRUST
    return path.read_bytes() if path.is_file() else b""


def _settled(root: Root, place: Path, loaded: Loaded) -> bool:
    """Tell whether kernel settings, network and wires are the bundle's already."""
    if not wire.laid(root, loaded.interfaces, daemons.engines_of(place)):
        return False
    if any(network.differences(place, loaded.interfaces)):
        return False
    return not any(differing(wanted_settings(place)))
