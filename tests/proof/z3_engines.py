"""Whether an engine or a relay sees every connection that a firewall accepts, by z3 alone; files read a second time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import yaml
import z3

from netpolicy.proof import fields
from netpolicy.proof.evaluate import Packet
from netpolicy.proof.fields import State
from tests.proof.z3_exact import Exact, Witness, solved
from tests.proof.z3_packet import Symbols, both, either, opposite

PASSED, TAKEN, HANDED = "passes on", "takes", "hands connections to port"
"""How contradictions begin."""


@dataclass(frozen=True, slots=True)
class Files:
    """What stands beside a kernel."""

    inline: frozenset[str]
    """Interfaces behind which an engine stands that may drop, and copies both ways."""
    relays: Mapping[tuple[str, int], str]
    """By address and port at which certificates are asked for, the section of the relay's file."""


def read_files(build: Path) -> Files:
    """Read the files of one firewall's build."""
    wires: set[tuple[str, str]] = set()
    for path in (build / "suricata").glob("engine-*.yaml"):
        # An engine's two sides are in its own file: 'inner' is another wire in each.
        ends = yaml.safe_load(path.read_text(encoding="utf-8")).get("af-packet") or ()
        one_way = {(end["interface"], end["copy-iface"]) for end in ends if end.get("copy-mode") == "ips"}
        wires |= {(end, other) for end, other in one_way if (other, end) in one_way}
    path = build / "relay" / "haproxy.cfg"
    relays = _relays(path.read_text(encoding="utf-8")) if path.exists() else ()
    return Files(frozenset(end for end, _ in wires), dict(relays))


def _relays(text: str) -> Iterator[tuple[tuple[str, int], str]]:
    section: list[str] = []
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if words and not line[0].isspace():
            section = words
        elif words[:1] == ["bind"] and section[:1] == ["frontend"] and {"ssl", "transparent"} <= set(words):
            address, _, port = words[1].rpartition(":")
            asks = ("verify", "required") in pairwise(words)
            if asks and address in {"127.0.0.1", "[::1]"}:
                yield (address, int(port)), section[1]


@dataclass(frozen=True, slots=True, repr=False)
class Seen:
    """One firewall, with what stands beside it."""

    theorem: Exact
    flows: Mapping[str, z3.BoolRef]
    """What is demanded, by flow."""
    relayed: frozenset[str]
    files: Files

    def contradictions(self) -> Iterator[tuple[str, str | None, Witness]]:
        """Yield in which way connections get by, of which flow if they are handed over, and one of them."""
        for what, flow, formula in self._unseen():
            model = solved(formula)
            if model is not None:
                yield what, flow, self.theorem.witness(model)

    def _unseen(self) -> Iterator[tuple[str, str | None, z3.BoolRef]]:
        packet, sets = self.theorem.packet, self.theorem.sets
        begins = packet.in_state(State.NEW, State.UNTRACKED)
        by = both(begins, opposite(self._beside_an_engine(packet)))
        yield PASSED, None, both(sets.forwarded, by)
        tcp = packet[fields.PROTOCOL] == fields.TCP
        yield TAKEN, None, both(sets.delivered, by, tcp, opposite(either(sets.diverted.values())))
        address = {4: "127.0.0.1", 6: "[::1]"}[packet.family.version]
        for port, handed in sets.diverted.items():
            for flow in sorted(self.relayed & set(self.flows)):
                if self.files.relays.get((address, port)) != flow:
                    yield f"{HANDED} {port}", flow, both(handed, self.flows[flow])

    def _beside_an_engine(self, packet: Symbols) -> z3.BoolRef:
        known = sorted(self.files.inline & set(packet.names))
        return either(packet.at(end, *known) for end in (fields.IIF, fields.OIF))

    def unseen(self, packet: Packet) -> bool:
        """Tell whether a packet that the firewall passes on comes and goes where no engine stands."""
        return not {packet[fields.IIF], packet[fields.OIF]} & self.files.inline
