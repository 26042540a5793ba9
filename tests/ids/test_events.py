"""Every event of the decoder and of the stream engine: known, and dropped unless it is said why not."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from conformance.lab.rooted import Mount, Root
from ids_rules.emit import signatures
from ids_rules.events import (
    DROP_INVALID,
    NO_MATTER,
    NOT_DROPPED,
    STREAM,
    STREAM_BYTES,
    decoder_events,
    decoder_kind,
)
from ids_rules.lock import SidLock
from ids_rules.version import Suricata
from netpolicy.build import compile_files
from netpolicy.intent.derive import derive_intents
from netpolicy.topology.load import load_topology
from netpolicy.topology.model import Topology
from tests.ids.cases import FIREWALL, INTERFACE
from tests.ids.engine import replay
from tests.ids.malformed import MALFORMED, NO_CAPTURE
from tests.ids.oddities import opened
from tests.ids.transcript import write_pcap

ROOT = Path(__file__).parents[2]
_TELL_ALL = """%YAML 1.1
---
stats: {enabled: yes, interval: 1, decoder-events: yes, stream-events: yes}
outputs:
  - eve-log: {enabled: yes, filetype: regular, filename: eve.json, types: [{stats: {totals: yes, null-values: yes}}]}
"""
_ALIASES = {"3whs_synack_resend_with_different_ack", "est_synack_resend_with_different_ack"}
"""What ``stream-event`` calls events of which counters say ``diff``."""
_EVENT = re.compile(r"(decode|stream)-event:([a-z0-9_.]+)")


@pytest.fixture(params=[Suricata.V8, Suricata.V7])
def root(request: pytest.FixtureRequest) -> Root:
    """Return the root of each version."""
    found = Root(ROOT / (".engine/root" if request.param is Suricata.V8 else ".engine7/root"))
    assert found.suricata is request.param, "make setup"
    return found


@pytest.fixture(scope="module")
def topology() -> Topology:
    """Return the network of the repository."""
    return load_topology(ROOT / "topology.yaml").topology


def test_every_event_is_known(root: Root, tmp_path: Path) -> None:
    """What an engine counts, and what its own rules name, is in the tables, and nothing else is."""
    decoding, streaming = set(decoder_events()), {*STREAM, *STREAM_BYTES, *DROP_INVALID, *NO_MATTER}
    told = set(_counted(root, tmp_path))
    for name in ("decoder-events.rules", "stream-events.rules"):
        told.update(_EVENT.findall((root.directory / "etc/suricata/rules" / name).read_text()))
    assert {event for kind, event in told if kind == "stream"} - _ALIASES == streaming
    known = {event for kind, event in told if kind == "decode"}
    if root.suricata is Suricata.V8:
        assert known == decoding
    else:
        assert known - decoding == set()


def test_each_event_has_one_fate(topology: Topology) -> None:
    """It is in one table, and a signature drops on each that no table excuses, but for those that 7 does not know."""
    assert len({*STREAM, *STREAM_BYTES, *DROP_INVALID, *NO_MATTER}) == sum(
        map(len, (STREAM, STREAM_BYTES, DROP_INVALID, NO_MATTER))
    )
    wanted = {decoder_kind(event) for event in decoder_events() if event not in NOT_DROPPED}
    wanted |= {"stream-" + event.replace("_", "-") for event in (*STREAM, *STREAM_BYTES)}
    for version, unknown in ((Suricata.V8, 0), (Suricata.V7, 2)):
        there = {each.id for each in signatures(derive_intents(topology)[FIREWALL], version) if each.action == "drop"}
        assert len(wanted - there) == unknown


def test_what_is_not_decoded_is_dropped(root: Root, topology: Topology, tmp_path: Path) -> None:
    """One frame or more for each event of the decoder, all in one capture."""
    _configure(root, topology, tmp_path)
    frames = [
        Ether(frame) if len(frame) > len(Ether()) else Raw(frame) for frames in MALFORMED.values() for frame in frames
    ]
    raised = replay([Ether(each) if len(each) > 14 else Raw(each) for each in frames], tmp_path, INTERFACE, root)
    intent = derive_intents(topology)[FIREWALL]
    kinds = {each.id for each in signatures(intent, root.suricata) if each.id.startswith("decoder-")}
    assert kinds - {each.kind for each in raised if each.blocked} == {each for each in NO_CAPTURE if each in kinds}


def test_what_streams_refuse_is_dropped(root: Root, topology: Topology, tmp_path: Path) -> None:
    """Without a signature: what no stream can be read from by its numbers and flags."""
    _configure(root, topology, tmp_path)
    odd: list[dict[str, object]] = [
        {"flags": "S", "seq": 77, "ack": 0},  # est_syn_resend_diff_seq
        {"flags": "SA", "seq": 5000, "ack": 1001},  # est_synack_toserver
        {"flags": "FA", "seq": 900_000_000},  # fin_out_of_window
        {"flags": "FA", "ack": 900_000_000},  # fin_invalid_ack
        {"flags": "RA", "ack": 900_000_000},  # rst_invalid_ack
    ]
    settings = tmp_path / "suricata.yaml"  # by default only drops at the beginning of a flow are told
    settings.write_text(settings.read_text().replace("flows: start", "flows: all"))
    for each in odd:
        raised = replay(opened(each), tmp_path, INTERFACE, root, drops=True)
        assert "stream error" in {said.kind for said in raised}, each


def _configure(root: Root, topology: Topology, directory: Path) -> None:
    for name, text in compile_files(topology, SidLock(), root.suricata).items():
        if name.startswith(f"{FIREWALL}/suricata/"):
            (directory / Path(name).name).write_text(text, encoding="utf-8")


def _counted(root: Root, directory: Path) -> Iterator[tuple[str, str]]:
    """Yield the events that an engine counts: all that it has."""
    write_pcap(directory / "input.pcap", [Ether()])
    (directory / "all.yaml").write_text(_TELL_ALL, encoding="utf-8")
    inside = "/var/log/suricata"
    argv = ["/usr/bin/suricata", "-c", f"{inside}/all.yaml", "-l", inside, "-r", f"{inside}/input.pcap"]
    command = root.command([*argv, "-S", "/dev/null", "--runmode", "single"], [Mount(directory, inside, writable=True)])
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    *_, last = (json.loads(line) for line in (directory / "eve.json").read_text(encoding="utf-8").splitlines())
    yield from (("stream", event) for event in last["stats"]["stream"])
    for layer, events in last["stats"]["decoder"]["event"].items():
        yield from (("decode", f"{layer}.{event}") for event in events)
