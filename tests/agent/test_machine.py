"""Room for connections: what the flows of a firewall may take at their limits fits into its kernel's table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance_image.agent import machine
from netpolicy.host.kernel import emit_sysctl
from netpolicy.host.machine import CLOSING_SECONDS, emit_machine, tracked
from netpolicy.intent.derive import derive_intents
from netpolicy.proof.settings import read, settings
from netpolicy.topology.load import load_topology
from netpolicy.topology.model import Assurance
from tests.agent.making import FIREWALL, Operator, files_of, topology
from tests.agent.world import World

_ENTRIES, _LISTS = "net/netfilter/nf_conntrack_max", "net/netfilter/nf_conntrack_buckets"


def _asking(entries: int) -> dict[str, bytes]:
    return {**files_of("notice"), "machine.conf": f"{_ENTRIES} = {entries}\n".encode()}


def test_room_is_for_all_flows_at_their_limits() -> None:
    """A connection, and what closes meanwhile; twice in a relay, and three times to the firewall's own endpoint."""
    intents = derive_intents(load_topology(Path("topology.yaml")).topology)
    for intent in intents.values():
        relayed = {each.flow: 3 if each.local else 2 for each in intent.relayed}
        most = sum(relayed.get(flow.id, 1) * (flow.limits.connections + 40 * flow.limits.rate) for flow in intent.flows)
        told = {key: int(value) for key, value in settings(emit_machine(intent))}
        assert told.keys() == {_ENTRIES, _LISTS}
        assert tracked(intent) == most
        assert told[_ENTRIES] >= 1.25 * tracked(intent)
        assert told[_LISTS] >= told[_ENTRIES]
    assert max(map(tracked, intents.values())) > 50_000  # where the kernel gives a machine of 1 GiB 8,192


def test_what_closes_keeps_its_place_as_long_as_the_kernel_is_told() -> None:
    """The seconds that are reckoned with are those of the settings."""
    intent = derive_intents(topology("notice"))[FIREWALL]
    told = dict(settings(emit_sysctl(intent)))
    names = ("last_ack", "time_wait")
    assert sum(int(told[f"net/netfilter/nf_conntrack_tcp_timeout_{each}"]) for each in names) == CLOSING_SECONDS


def test_a_flow_has_more_room_in_a_relay() -> None:
    """The relay's own connection onward has an entry too, in a zone of its own."""
    inspected, relayed = (
        tracked(derive_intents(topology("notice", assurance=each))[FIREWALL])
        for each in (Assurance.INSPECT, Assurance.TERMINATE)
    )
    assert relayed == 2 * inspected


def test_less_than_was_signed_is_told(tmp_path: Path) -> None:
    """More is no difference, and nothing is asked for where a bundle is of before."""
    there = int(read(_ENTRIES))
    assert list(machine.differences(tmp_path)) == []
    path = tmp_path / "machine.conf"
    path.write_text(f"{_ENTRIES} = {there}\n")
    assert list(machine.differences(tmp_path)) == []
    machine.load(tmp_path)
    path.write_text(f"{_ENTRIES} = {there + 1}\n")
    assert list(machine.differences(tmp_path)) == [(_ENTRIES, there + 1, str(there))]


def test_a_machine_without_room_runs_what_it_ran(running: World, operator: Operator) -> None:
    """A bundle whose connections would take more than a quarter of memory is refused before anything changes."""
    done = running.agent("apply", str(running.write(operator.bundle(_asking(10**9), 2))), "--confirm", "60s", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["code"] == "memory"
    assert json.loads(running.agent("status", "--json").stdout)["runs"]["serial"] == 1
    assert running.agent("drift").returncode == 0
    assert [each["fields"]["code"] for each in running.records() if each["event"] == "refused"] == ["memory"]


@pytest.mark.parametrize("code", ["memory", "kernel"])
def test_no_room_is_closed_at_boot(world: World, operator: Operator, code: str) -> None:
    """Without room, or on a kernel that gives none (a network namespace's), nothing is ever forwarded."""
    entries = {"memory": 10**9, "kernel": int(read(_ENTRIES)) + 1}[code]
    world.install(operator.bundle(_asking(entries), 1))
    assert not world.boot()
    assert f"rules: closed: {code}: " in world.console()[-1]
