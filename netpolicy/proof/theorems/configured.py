"""Engines and relays are told to be closed, as their own programs read what they are told (theorem ``engines``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from netpolicy.proof.case import Finding
from netpolicy.proof.engine_reading import plain, settings, signatures
from netpolicy.proof.relay_reading import ReadingError, Served, demands, statements
from netpolicy.proof.theorems.engines import ENGINES
from netpolicy.rooted.build import Look
from netpolicy.topology.model import Assurance, Topology


def configured(topology: Topology, firewall: str, build: Path, look: Look) -> Iterator[Finding]:
    """Yield what one firewall's engines and relay are told that they must not be.

    Args:
        topology: Says which flows are relayed.
        firewall: Whose files they are.
        build: Of the firewall.
        look: What its programs say of them.

    """
    for what in (*look.complaints(), *_engines(build / "suricata", look), *_relay(topology, build / "relay", look)):
        yield Finding(ENGINES, firewall, what)


def _engines(directory: Path, look: Look) -> Iterator[str]:
    if not look.engines:
        return
    known = signatures(directory)
    yield from known.wrong
    shared = directory / "suricata.yaml"
    for path in (shared, *(directory / f"engine-{interface}.yaml" for interface in look.engines)):
        try:
            yield from (f"{path.name}: {each}" for each in plain(path.read_text(encoding="utf-8")))
        except (yaml.YAMLError, UnicodeDecodeError) as wrong:
            yield f"{path.name} is not YAML: {wrong}"
    for interface, engine in look.engines.items():
        yield from (f"the engine at {interface}: {each}" for each in settings(engine.settings, interface))
        if engine.said.loaded != known.count:
            yield f"the engine at {interface} loads {engine.said.loaded} signatures of {known.count}"


def _relay(topology: Topology, directory: Path, look: Look) -> Iterator[str]:
    if look.relay is None:
        return
    try:
        said = statements((directory / "haproxy.cfg").read_text(encoding="utf-8"))
    except (ReadingError, UnicodeDecodeError) as unread:
        yield f"haproxy.cfg: {unread}"
        return
    if (read := [each.text for each in said]) != list(look.relay.lines):
        pairs = zip([*read, ""], [*look.relay.lines, ""], strict=False)
        ours, theirs = next((pair for pair in pairs if pair[0] != pair[1]), ("", ""))
        yield f"haproxy.cfg: HAProxy reads {theirs!r} where {ours!r} stands"
    flows = {
        flow.id: Served(topology.services[flow.service].alpn, topology.services[flow.service].prologue)
        for flow in topology.effective_flows()
        if flow.assurance is Assurance.TERMINATE
    }
    yield from (f"haproxy.cfg: {each}" for each in demands(said, flows))
