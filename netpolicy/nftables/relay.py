"""How packets of flows that are relayed get to the relay's sockets, and its own packets out (nft TPROXY).

The relay goes on from the client's own address and port, so both of its connections have the same ends, and the
onward one is tracked in a zone of its own.  They cannot be mistaken for each other, since only one side of each has the
port of a service; a client that itself speaks from such a port is not served.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from netpolicy.intent.model import RELAY_MARK, FirewallIntent
from netpolicy.nftables.names import PREFIXES, deny_chain
from netpolicy.nftables.text import block, collection
from netpolicy.reasons import DenyReason
from netpolicy.topology.model import PortRange

_DELIVER = f"meta mark set {RELAY_MARK:#x} accept"
_ZONE = 1


def divert(families: Iterable[int], port: int, match: str, before: str = "", after: str = "") -> Iterator[str]:
    """Yield rules that hand TCP of `families` to the relay's listener at `port`, or to a connection it has taken there.

    Without a listener a rule does not match, and the next one decides.
    """
    listeners = {4: f"tproxy ip to 127.0.0.1:{port}", 6: f"tproxy ip6 to [::1]:{port}"}
    for family in families:
        statement = listeners[family]
        yield f"{match}meta nfproto ipv{family} meta l4proto tcp {statement} {before}{_DELIVER}{after}"


def relay_ports(intent: FirewallIntent) -> Iterator[list[str]]:
    """Yield the ports of services that are relayed, as one set where they are the same in all families."""
    for _, name, ports in _relayed(intent):
        elements = [str(port) for port in ports]
        yield collection(f"set {name}", "inet_service", elements, interval=_ranged(ports), counter=False)


def relay_chains(intent: FirewallIntent, original: list[str]) -> Iterator[list[str]]:
    """Yield the chains that divert; `original` are the rules that send what is permitted to its flow's chain."""
    relayed = list(_relayed(intent))
    yield block(
        "chain relay_zone_in",
        (
            "type filter hook prerouting priority raw; policy accept;",
            *(
                f"{match}tcp sport @{name} tcp dport != @{name} socket transparent 1 ct zone set {_ZONE}"
                for match, name, _ in relayed
            ),
        ),
    )
    yield block(
        "chain relay_zone_out",
        (
            "type filter hook output priority raw; policy accept;",
            *(
                f'oifname != "lo" {match}tcp dport @{name} tcp sport != @{name} ct zone set {_ZONE}'
                for match, name, _ in relayed
            ),
        ),
    )
    yield block(
        "chain relay",
        (
            "type filter hook prerouting priority mangle; policy accept;",
            'iifname "lo" accept',
            *(
                f"{match}ct zone {_ZONE} ct state established ct direction reply socket transparent 1 {_DELIVER}"
                for match, _, _ in relayed
            ),
            *original,
        ),
    )


def _relayed(intent: FirewallIntent) -> Iterator[tuple[str, str, list[PortRange]]]:
    """Yield the match of a family, the name of its set, and the ports that are relayed in it; or all families in one.

    A flow whose ends have one family in common is relayed in that alone.
    """
    relayed = {each.flow for each in intent.relayed}
    services = {flow.id: flow.ports for flow in intent.flows}
    ports = {
        family: sorted(
            {
                port
                for flow in {each.flow for each in intent.permits if each.family == family} & relayed
                for port in services[flow]
            }
        )
        for family in intent.families
    }
    found = [held for held in ports.values() if held]
    if len(found) == len(ports) and all(held == found[0] for held in found):
        yield "", "relay_ports", found[0]
        return
    for family, held in ports.items():
        if held:
            yield f"meta nfproto ipv{family} ", f"relay_ports{family}", held


def relay_input() -> str:
    """Return the rule that lets in what was handed to the relay."""
    return f"meta mark {RELAY_MARK:#x} accept"


def relay_output(families: Iterable[int], rules: Iterator[str]) -> Iterator[str]:
    """Yield what the relay may send: `rules` are those of its pairs of ends."""
    for family in families:
        prefix = PREFIXES[family]
        astray = f"goto {deny_chain(DenyReason.SPOOFED_DESTINATION)}"
        yield f"oifname . {prefix} daddr != @behind{family} {astray}"
    yield from rules


def _ranged(ports: list[PortRange]) -> bool:
    return any(port.first != port.last for port in ports)
