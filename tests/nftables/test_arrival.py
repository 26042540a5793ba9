"""The ends of flows that are let in by hash sets are those that the slower look-ups behind them let in."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from netpolicy.intent.derive import derive_intents
from netpolicy.intent.model import FirewallIntent
from netpolicy.nftables.arrival import ends
from netpolicy.topology.load import load_topology
from netpolicy.topology.model import Address

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", name="intents")
def _intents() -> dict[str, FirewallIntent]:
    topology = load_topology(_ROOT / "topology.yaml").topology
    assert topology is not None
    return derive_intents(topology)


def _own(intent: FirewallIntent) -> set[Address]:
    return {address for interface in intent.interfaces for address in interface.addresses}


def _nobody(intent: FirewallIntent) -> set[Address]:
    prefixes = {prefix for interface in intent.interfaces for prefix in interface.prefixes if prefix.num_addresses > 2}
    return {each.broadcast_address if isinstance(each, IPv4Network) else each.network_address for each in prefixes}


@pytest.mark.parametrize("family", [4, 6])
def test_senders_live_behind_their_interface(intents: dict[str, FirewallIntent], family: int) -> None:
    """None of them is the firewall's own address, or nobody's, or comes in where it does not live."""
    found = 0
    for intent in intents.values():
        behind = {interface.name: interface.behind for interface in intent.interfaces}
        senders, _ = ends(intent.permits, family)
        for interface, address in senders:
            assert any(address in prefix for prefix in behind[interface] if prefix.version == family)
            assert address not in _own(intent) | _nobody(intent)
            found += 1
    assert found > 0


@pytest.mark.parametrize("family", [4, 6])
def test_receivers_are_on_known_networks(intents: dict[str, FirewallIntent], family: int) -> None:
    """None of them is nobody's address, or on a network that the firewall does not know."""
    found = 0
    for intent in intents.values():
        known = [prefix for interface in intent.interfaces for prefix in interface.behind if prefix.version == family]
        _, receivers = ends(intent.permits, family)
        for address in receivers:
            assert any(address in prefix for prefix in known)
            assert address not in _nobody(intent)
            found += 1
    assert found > 0


@pytest.mark.parametrize("family", [4, 6])
def test_every_permit_has_its_ends_there(intents: dict[str, FirewallIntent], family: int) -> None:
    """No permitted packet, and no answer to one, needs the slower look-ups."""
    for intent in intents.values():
        senders, receivers = ends(intent.permits, family)
        for permit in intent.permits:
            if permit.family == family:
                assert {(permit.in_interface, source) for source in permit.sources} <= set(senders)
                assert set(permit.destinations) <= set(receivers)
                if permit.out_interface is not None:
                    assert {(permit.out_interface, end) for end in permit.destinations} <= set(senders)
                    assert set(permit.sources) <= set(receivers)
