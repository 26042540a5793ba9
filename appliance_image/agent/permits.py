"""Which tracked connections the rules in force still permit; the others end.

The rules look at every packet of a connection again, so nothing of one that lost its permit passes any more. What is
done here is that it does not come back to life either when a later bundle permits it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from ipaddress import ip_address

from appliance_image.agent.conntrack import Connection, Tracking
from appliance_image.agent.errors import AgentError
from netpolicy.proof import fields
from netpolicy.proof.evaluate import Fate, Packet, evaluate
from netpolicy.proof.fields import STATES, Family, Field, State
from netpolicy.proof.model import Divert, Hook, Rule, Ruleset, Unknown
from netpolicy.proof.question import clock

_LOOPBACK = "lo"


def end_unpermitted(ruleset: Ruleset, interfaces: Iterable[str]) -> int:
    """End every tracked connection that rules do not permit, and return how many.

    Args:
        ruleset: What the kernel holds.
        interfaces: The firewall's.

    Raises:
        AgentError: The kernel does not tell its connections, or keeps one.

    """
    names, ended = tuple(interfaces), 0
    known: dict[tuple[int, ...], bool] = {}
    now = clock(datetime.now(UTC))
    try:
        with closing(Tracking()) as tracking:
            for connection in tracking.connections():
                kind = (
                    *(connection.version, connection.source, connection.destination, connection.protocol),
                    connection.destination_port,
                )
                if kind not in known:
                    known[kind] = permitted(ruleset, connection, names, now)
                if not known[kind]:
                    ended += tracking.end(connection)
    except OSError as failed:
        raise AgentError("conntrack", f"the kernel keeps connections without a permit: {failed}") from failed
    return ended


def permitted(ruleset: Ruleset, connection: Connection, interfaces: tuple[str, ...], now: dict[Field, int]) -> bool:
    """Tell whether a packet of a connection, from the end that began it, passes on any way through the firewall."""
    ends = (ip_address(each.to_bytes(4 if connection.version == 4 else 16)) for each in connection.ends)
    # Rules accept everything on the loopback device, and nothing but the firewall's talk with itself is there.
    near = (*interfaces, _LOOPBACK) if all(each.is_loopback for each in ends) else interfaces
    for hooks, ways in (
        ((Hook.PREROUTING, Hook.FORWARD, Hook.POSTROUTING), _pairs(interfaces)),
        ((Hook.PREROUTING, Hook.INPUT), ((each, "") for each in near)),
        ((Hook.OUTPUT, Hook.POSTROUTING), (("", each) for each in near)),
    ):
        for entering, leaving in ways:
            packet = _packet(connection, now).changed({fields.IIF: entering, fields.OIF: leaving})
            if evaluate(ruleset, hooks, packet, _oracle).fate is Fate.ACCEPT:
                return True
    return False


def _pairs(interfaces: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    return ((entering, leaving) for entering in interfaces for leaving in interfaces if entering != leaving)


def _packet(connection: Connection, now: dict[Field, int]) -> Packet:
    family = Family.IPV4 if connection.version == 4 else Family.IPV6
    values: dict[Field, int | str] = {
        fields.SADDR: connection.source,
        fields.DADDR: connection.destination,
        fields.PROTOCOL: connection.protocol,
        fields.SPORT: connection.source_port,
        fields.DPORT: connection.destination_port,
        fields.STATE: STATES.index(State.ESTABLISHED),
        fields.TTL: 64,
        fields.LENGTH: 60,
        **now,
    }
    if family is Family.IPV4:
        values[fields.HEADER_LENGTH] = 5
    else:
        values[fields.NEXT_HEADER] = connection.protocol
    if connection.protocol == fields.TCP:
        values[fields.TCP_FLAGS] = fields.ACK
    return Packet(family, values)


def _oracle(_rule: Rule, asked: Unknown | Divert) -> bool:
    """Say that no limit is reached, and that every relay runs."""
    return isinstance(asked, Divert) or "inv True" not in asked.text
