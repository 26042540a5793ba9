"""Real mail, web, FTP and Telnet clients against real servers, across the firewalls.

A client that fails proves nothing by itself.  Here the same client reaches the same server from beside it, before and
after; the server has accepted nothing from across; and the counter at the firewall where the attempt must die rose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from conformance.expect import Expectation, Judge, Packet
from conformance.lab import Lab
from conformance.lab.scope import Scope
from conformance.outcome import Expected, Outcome, Status
from conformance.protocols.catalogue import STANDARD, UNUSUAL, Protocol, Traffic
from conformance.protocols.clients import CLIENTS, ClientError
from conformance.protocols.servers import serve_forbidden
from netpolicy.topology.model import Address, Node

STAGE = "client"
_AT_ONCE = 400
_ACROSS_SECONDS, _BESIDE_SECONDS = 1.0, 15.0
"""What is dropped does not answer sooner or later; what must answer may be slow."""


Place = tuple[Address, int]
"""Where a server listens."""


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One client against one server."""

    source: Node
    destination: Node
    address: Address
    protocol: Protocol
    port: int
    firewall: str
    expected: Expected


def run_clients(
    lab: Lab, expectation: Expectation, scope: Scope, firewalls: Iterable[str], progress: Callable[[str], None]
) -> list[Outcome]:
    """Try every protocol between one node of each role and one of each other, where the first firewall is one given.

    Of a role with sites that are not connected, one such node tries too.
    """
    sources, servers = _representatives(lab)
    judges = {firewall: expectation.judge(firewall) for firewall in firewalls}
    attempts = [
        attempt
        for source in sources
        for server in servers
        if source is not server
        for attempt in _attempts(expectation, judges, source, server)
    ]
    with serve_forbidden(lab, servers) as traffic:
        broken = _controls(lab, servers, traffic)
        progress(f"{len(servers)} servers of each protocol, {len(attempts)} attempts")
        scope.admit_connections(lab.namespace(sources[0].id), (attempt.address for attempt in attempts))
        watched = [firewall for firewall in judges if firewall not in lab.elsewhere]
        before = {firewall: lab.counters(firewall) for firewall in watched}
        accepted = {(each.address, each.port): traffic.accepted(each.address, each.port) for each in attempts}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            answers = list(pool.map(partial(_try, lab), attempts))
        after = {firewall: lab.counters(firewall) for firewall in watched}
        reached = {place for place, count in accepted.items() if traffic.accepted(*place) != count}
        broken |= _controls(lab, servers, traffic)
    rises: dict[tuple[str, str | None], int] = {
        (firewall, name): after[firewall][name] - count
        for firewall in watched
        for name, count in before[firewall].items()
    }
    wanted = Counter((each.firewall, each.expected.counter) for each in attempts)
    return [
        _conclude(
            attempt,
            answer,
            broken,
            reached,
            short=attempt.firewall in watched
            and rises.get((attempt.firewall, attempt.expected.counter), 0)
            < wanted[attempt.firewall, attempt.expected.counter],
        )
        for attempt, answer in zip(attempts, answers, strict=True)
    ]


def _representatives(lab: Lab) -> tuple[list[Node], list[Node]]:
    """Return the clients' nodes and the servers' nodes."""
    clients: dict[tuple[str, bool], Node] = {}
    for node in lab.topology.nodes.values():
        connected = node.site is None or lab.topology.sites[node.site].connected
        clients.setdefault((node.role, connected), node)
    return list(clients.values()), [node for (_, connected), node in clients.items() if connected]


def _attempts(
    expectation: Expectation, judges: dict[str, Judge], source: Node, destination: Node
) -> Iterator[_Attempt]:
    path = expectation.routing.path(source.interface.segment, destination.interface.segment)
    if not path or path[0].firewall not in judges:
        return
    families = {address.version: address for address in source.interface.addresses}
    for address in destination.interface.addresses:
        if address.version not in families:
            continue
        for protocol in Protocol:
            for port in (STANDARD[protocol], UNUSUAL[protocol]):
                packet = Packet(path[0].in_interface, families[address.version], address, "tcp", port)
                expected, _ = judges[path[0].firewall].judge(packet)
                yield _Attempt(source, destination, address, protocol, port, path[0].firewall, expected)


def _try(lab: Lab, attempt: _Attempt) -> str | None:
    """Return what a client achieved or was told, None if nothing at all came back."""
    client = CLIENTS[attempt.protocol]
    try:
        return lab.namespace(attempt.source.id).call(lambda: client(attempt.address, attempt.port, _ACROSS_SECONDS))
    except TimeoutError:
        return None
    except (OSError, EOFError, ClientError) as failed:
        return f"something answered: {failed}"


def _controls(lab: Lab, servers: list[Node], traffic: Traffic) -> dict[Place, str]:
    """Run every client beside its server; return what is wrong with those that do not work."""
    places = [
        (node, address, protocol, port)
        for node in servers
        for address in node.interface.addresses
        for protocol in Protocol
        for port in (STANDARD[protocol], UNUSUAL[protocol])
    ]

    def wrong(place: tuple[Node, Address, Protocol, int]) -> str | None:
        node, address, protocol, port = place
        before = traffic.accepted(address, port)
        try:
            lab.namespace(node.id).call(lambda: CLIENTS[protocol](address, port, _BESIDE_SECONDS))
        except (OSError, EOFError, ClientError) as failed:
            return str(failed)
        return None if traffic.wait_beyond(address, port, before) else "it has not seen its client"

    with ThreadPoolExecutor(8) as pool:
        return {
            (address, port): why
            for (_, address, _, port), why in zip(places, pool.map(wrong, places), strict=True)
            if why is not None
        }


def _conclude(
    attempt: _Attempt,
    answer: str | None,
    broken: dict[Place, str],
    reached: set[Place],
    *,
    short: bool,
) -> Outcome:
    place = (attempt.address, attempt.port)
    if answer is not None:
        status, observed = Status.DEVIATION, answer
    elif place in broken:
        status, observed = (
            Status.ERROR,
            f"the server does not answer beside itself either ({broken[place]}), so its silence proves nothing",
        )
    elif place in reached:
        status, observed = Status.DEVIATION, "the server accepted a connection from across"
    elif short:
        status, observed = Status.DEVIATION, f"{attempt.expected.counter} rose by less than was tried"
    else:
        status, observed = Status.PASS, "no answer"
    return Outcome(
        stage=STAGE,
        source=attempt.source.id,
        destination=attempt.destination.id,
        probe=f"{attempt.protocol} client tcp/{attempt.port}",
        family=attempt.address.version,
        firewall=attempt.firewall,
        expected=attempt.expected,
        status=status,
        observed=observed,
    )
