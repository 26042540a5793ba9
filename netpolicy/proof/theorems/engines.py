"""Each accepted connection crosses an inline engine, or ends at a relay, on each firewall."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from netpolicy.proof import fields
from netpolicy.proof.case import DELIVERED, FORWARDED, Case, Finding, found
from netpolicy.proof.engine_reading import LOADER
from netpolicy.proof.fields import State
from netpolicy.proof.relay_reading import ReadingError, statements

ENGINES = "engines"

_LOOPBACK = {"127.0.0.1": 4, "[::1]": 6}


@dataclass(frozen=True, slots=True)
class Guards:
    """What stands beside the kernel of one firewall, as its files say."""

    engines: frozenset[str]
    """Interfaces whose wire leads to the kernel through an engine alone."""
    listeners: Mapping[tuple[int, int], str]
    """By family and port at which a relay asks for certificates: the flow whose ends it then looks for."""


def read_guards(build: Path) -> Guards:
    """Return what the files of one firewall's build say.

    Raises:
        OSError: A file cannot be read.
        yaml.YAMLError: An engine's configuration is not YAML.

    """
    inline: set[str] = set()
    for path in sorted((build / "suricata").glob("engine-*.yaml")):
        read = yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)  # noqa: S506 - it is a safe one
        pairs = read.get("af-packet") or []
        inline.update(_inline(pairs))
    return Guards(frozenset(inline), dict(_listeners(build / "relay" / "haproxy.cfg")))


def _listeners(relay: Path) -> Iterator[tuple[tuple[int, int], str]]:
    """Yield where a relay asks for certificates; nothing of a file that is not read with certainty."""
    if not relay.exists():
        return
    try:
        said = statements(relay.read_text(encoding="utf-8"))
    except (ReadingError, UnicodeDecodeError):
        return
    for each in said:
        if each.section[0] == "frontend" and each.words[0] == "bind" and len(each.words) > 1:
            address, _, port = each.words[1].rpartition(":")
            asks = {"ssl", "transparent"} <= set(each.words) and ("verify", "required") in pairwise(each.words)
            if asks and address in _LOOPBACK and port.isdecimal():
                yield (_LOOPBACK[address], int(port)), each.section[1]


def _inline(pairs: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the wires that are copied to another interface and back, by an engine that may drop."""
    copies = {each["interface"]: each["copy-iface"] for each in pairs if each.get("copy-mode") == "ips"}
    for interface, copy in copies.items():
        if copies.get(copy) == interface:
            yield interface


def engines(case: Case, firewall: str, guards: Guards) -> Iterator[Finding]:
    """Yield connections that no engine and no relay of a firewall sees."""
    space, judged = case.space, case.judged[firewall]
    first = space.in_state(State.NEW, State.UNTRACKED)
    seen = space.interface(fields.IIF, guards.engines) | space.interface(fields.OIF, guards.engines)
    if not guards.engines:
        seen = space.false
    picked = space.pick(judged.forwarded & first & ~seen)
    if picked is not None:
        yield found(ENGINES, judged, FORWARDED, picked, "passes on what no engine sees")
    taken = space.union(list(judged.diverted.values()))
    picked = space.pick(judged.delivered & first & space.where(fields.PROTOCOL, fields.TCP) & ~taken & ~seen)
    if picked is not None:
        yield found(ENGINES, judged, DELIVERED, picked, "takes what neither an engine nor a relay sees")
    for port, packets in judged.diverted.items():
        listener = guards.listeners.get((space.family.version, port))
        for flow, demanded in case.demanded[firewall].diverted.items():
            picked = space.pick(packets & demanded) if listener != flow else None
            if picked is not None:
                who = (
                    f"where the relay serves flow '{listener}'" if listener else "where no relay asks for certificates"
                )
                yield found(ENGINES, judged, DELIVERED, picked, f"hands connections to port {port}, {who}", flow)
