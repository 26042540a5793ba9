"""Each accepted connection crosses an inline engine, or ends at a relay, on each firewall."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from netpolicy.proof import fields
from netpolicy.proof.case import DELIVERED, FORWARDED, Case, Finding, found
from netpolicy.proof.fields import State

ENGINES = "engines"

_BIND = re.compile(r"^\s*bind (127\.0\.0\.1|\[::1\]):(\d+) transparent ssl .*verify required")
_FRONTEND = re.compile(r"^frontend (\S+)$")
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
        pairs = yaml.safe_load(path.read_text(encoding="utf-8")).get("af-packet") or []
        inline.update(_inline(pairs))
    return Guards(frozenset(inline), dict(_listeners(build / "relay" / "haproxy.cfg")))


def _listeners(relay: Path) -> Iterator[tuple[tuple[int, int], str]]:
    frontend = ""
    for line in relay.read_text(encoding="utf-8").splitlines() if relay.exists() else ():
        if (begins := _FRONTEND.match(line)) is not None:
            frontend = begins[1]
        elif (bound := _BIND.match(line)) is not None:
            yield (_LOOPBACK[bound[1]], int(bound[2])), frontend


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
