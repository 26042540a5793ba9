"""What emitted rulesets do on the running kernel."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conformance.lab import Lab, Namespace
from netpolicy.build import compile_topology
from netpolicy.intent.derive import derive_intents
from netpolicy.nftables.ruleset import emit_ruleset
from netpolicy.topology.model import Limits, Selector, Topology, Weekday, Window
from tests.lab.small import PORT, small_topology

ADDRESS = {4: "10.77.3.10", 6: "fd77:0:0:3::a"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_UNANSWERED = 0.5
"""Seconds: less than until a second SYN, so that what is refused is counted once."""


@pytest.fixture(name="topology")
def _topology() -> Topology:
    return small_topology("kernel")


@pytest.fixture(name="lab")
def _lab(topology: Topology, tmp_path: Path) -> Iterator[Lab]:
    compile_topology(topology, tmp_path / "build")
    with Lab(topology, tmp_path / "build") as lab:
        yield lab


def _server(lab: Lab, version: int) -> socket.socket:
    return lab.namespace("gamma").call(
        lambda: socket.create_server((ADDRESS[version], PORT), family=FAMILY[version], backlog=64)
    )


def _connect(namespace: Namespace, version: int, seconds: float = 5.0) -> socket.socket | None:
    """Return an open connection to gamma's port, None when nobody answers in time."""

    def attempt() -> socket.socket | None:
        client = socket.socket(FAMILY[version], socket.SOCK_STREAM)
        client.settimeout(seconds)
        try:
            client.connect((ADDRESS[version], PORT))
        except TimeoutError:
            client.close()
            return None
        return client

    return namespace.call(attempt)


def _with_limits(topology: Topology, limits: Limits) -> Topology:
    return replace(topology, flows={name: replace(flow, limits=limits) for name, flow in topology.flows.items()})


def _reload(lab: Lab, topology: Topology, path: Path, *, max_pairs: int = 4096) -> None:
    for name, intent in derive_intents(topology).items():
        (path / f"{name}.nft").write_text(emit_ruleset(intent, max_pairs=max_pairs))
        lab.load(name, path / f"{name}.nft")


def _talk(client: socket.socket, server: socket.socket) -> bytes:
    """Send one word from end to end and back, so that both directions are shown to pass."""
    connection, _ = server.accept()
    with connection:
        client.sendall(b"ping")
        connection.sendall(connection.recv(4))
        return client.recv(4)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("max_pairs", [4096, 0], ids=["map", "sets"])
def test_a_permit_passes_both_ways_and_its_neighbour_does_not(
    lab: Lab, topology: Topology, tmp_path: Path, version: int, max_pairs: int
) -> None:
    """Alpha reaches gamma, beta on the same segment does not, whether pairs are map elements or two sets."""
    _reload(lab, topology, tmp_path, max_pairs=max_pairs)
    with _server(lab, version) as server:
        client = _connect(lab.namespace("alpha"), version)
        assert client is not None
        with client:
            assert _talk(client, server) == b"ping"
        before = lab.counters("edge")
        assert before["flow_notice"] == 1
        assert _connect(lab.namespace("beta"), version, _UNANSWERED) is None
        assert lab.counters("edge")["deny_no_flow"] == before["deny_no_flow"] + 1


def _around_now(*, is_open: bool) -> Window:
    """Return a window of two hours that holds the present or ends an hour before it, in Tokyo."""
    local = datetime.now(UTC) + timedelta(hours=9)
    start = local - timedelta(hours=1 if is_open else 3)
    end = start + timedelta(hours=2)
    return Window((Weekday(start.weekday()),), start.time().replace(microsecond=0), end.time().replace(microsecond=0))


def _closed(topology: Topology) -> Topology:
    return _with_limits(topology, Limits(windows=(_around_now(is_open=False),)))


def _expired(topology: Topology) -> Topology:
    yesterday = (datetime.now(UTC) + timedelta(hours=9)).date() - timedelta(days=1)
    flows = {name: replace(flow, effective_until=yesterday) for name, flow in topology.flows.items()}
    return replace(topology, as_of=yesterday, flows=flows)


@pytest.mark.parametrize(("change", "counter"), [(_closed, "deny_outside_hours"), (_expired, "deny_expired")])
def test_time_closes_a_flow_and_ends_its_connections(
    lab: Lab, topology: Topology, tmp_path: Path, change: Callable[[Topology], Topology], counter: str
) -> None:
    """After its hours or its last day a flow takes no connection, and an open one carries nothing more."""
    _reload(lab, _with_limits(topology, Limits(windows=(_around_now(is_open=True),))), tmp_path)
    with _server(lab, 4) as server, ExitStack() as open_:
        client = _connect(lab.namespace("alpha"), 4)
        assert client is not None
        open_.enter_context(client)
        connection, _ = server.accept()
        open_.enter_context(connection)
        _reload(lab, change(topology), tmp_path)
        client.sendall(b"late")
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(4)
        assert lab.counters("edge")[counter] >= 1
        assert _connect(lab.namespace("alpha"), 4, _UNANSWERED) is None


def test_the_rate_limit_refuses_only_what_exceeds_it(lab: Lab, topology: Topology, tmp_path: Path) -> None:
    """Of eight connections at once, a flow of three per second gets its three and the refused ones are counted."""
    _reload(lab, _with_limits(topology, Limits(rate=3)), tmp_path)
    with _server(lab, 4), ExitStack() as open_:
        begun = time.monotonic()
        for _ in range(8):
            _start(lab.namespace("alpha"), open_)
        counters = lab.counters("edge")
        came_in = 3 * (time.monotonic() - begun)  # tokens, while they were sent
        assert 3 <= counters["flow_notice"] <= 3 + came_in
        assert counters["flow_notice"] + counters["deny_rate"] >= 8  # who is refused may have asked again


def test_the_connection_limit_frees_a_place_when_one_ends(lab: Lab, topology: Topology, tmp_path: Path) -> None:
    """A third concurrent connection is refused while two are open, and passes when one of them has ended."""
    _reload(lab, _with_limits(topology, Limits(connections=2)), tmp_path)
    with _server(lab, 4):
        first, second = (_connect(lab.namespace("alpha"), 4) for _ in range(2))
        assert first is not None
        assert second is not None
        with second:
            assert _connect(lab.namespace("alpha"), 4, _UNANSWERED) is None
            assert lab.counters("edge")["deny_connections"] >= 1
            first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close with RST, at once
            first.close()
            third = _connect(lab.namespace("alpha"), 4)
            assert third is not None
            third.close()


def _two_sources(topology: Topology, limits: Limits) -> Topology:
    """Let both of the town's nodes speak."""
    flow = replace(topology.flows["notice"], sources=Selector(nodes=("alpha", "beta")), limits=limits)
    return replace(topology, flows={flow.id: flow})


@pytest.mark.parametrize("version", [4, 6])
def test_one_source_leaves_connections_to_the_others(
    lab: Lab, topology: Topology, tmp_path: Path, version: int
) -> None:
    """Of twelve connections each of four addresses may have three: one gets no fourth, its neighbour still a first."""
    _reload(lab, _two_sources(topology, Limits(connections=12)), tmp_path)
    with _server(lab, version), ExitStack() as open_:
        for _ in range(3):
            connection = _connect(lab.namespace("alpha"), version)
            assert connection is not None
            open_.enter_context(connection)
        assert _connect(lab.namespace("alpha"), version, _UNANSWERED) is None
        assert lab.counters("edge")["deny_source_connections"] >= 1
        assert lab.counters("edge")["deny_connections"] == 0
        neighbour = _connect(lab.namespace("beta"), version)
        assert neighbour is not None
        neighbour.close()


def test_a_node_with_two_addresses_leaves_connections_to_the_others(
    lab: Lab, topology: Topology, tmp_path: Path
) -> None:
    """From both of its addresses a node gets half of eight connections; its neighbour gets the rest."""
    _reload(lab, _two_sources(topology, Limits(connections=8)), tmp_path)
    with _server(lab, 4), _server(lab, 6), ExitStack() as open_:
        for node in ("alpha", "beta"):
            for version in (4, 6):
                assert _taken(lab.namespace(node), version, 3, open_) == 2
        counters = lab.counters("edge")
        assert counters["deny_source_connections"] >= 4
        assert counters["deny_connections"] == 0


def test_sources_that_collude_get_no_more_than_the_total(lab: Lab, topology: Topology, tmp_path: Path) -> None:
    """Each may have three, all together five: two take the five, and it is the total that refuses the second."""
    _reload(lab, _two_sources(topology, Limits(connections=5, connections_per_source=3)), tmp_path)
    with _server(lab, 4), _server(lab, 6), ExitStack() as open_:
        assert _taken(lab.namespace("alpha"), 4, 4, open_) == 3
        assert lab.counters("edge")["deny_connections"] == 0
        assert _taken(lab.namespace("beta"), 6, 3, open_) == 2
        counters = lab.counters("edge")
        assert counters["deny_source_connections"] >= 1
        assert counters["deny_connections"] >= 1
        assert _taken(lab.namespace("beta"), 4, 1, open_) == 0


def _taken(namespace: Namespace, version: int, count: int, open_: ExitStack) -> int:
    """Return how many of so many connections to gamma's port come to be; they stay open."""
    found = [_connect(namespace, version, _UNANSWERED) for _ in range(count)]
    return sum(open_.enter_context(each) is not None for each in found if each is not None)


def test_one_source_leaves_rate_to_the_others(lab: Lab, topology: Topology, tmp_path: Path) -> None:
    """Forty connections at once from one source take nothing of what its neighbour may have each second."""
    _reload(lab, _two_sources(topology, Limits(rate=20, rate_per_source=5)), tmp_path)
    with _server(lab, 4), ExitStack() as open_:
        for _ in range(40):
            _start(lab.namespace("alpha"), open_)
        counters = lab.counters("edge")
        assert counters["deny_source_rate"] >= 20
        assert counters["deny_rate"] == 0
        neighbour = _connect(lab.namespace("beta"), 4, _UNANSWERED)
        assert neighbour is not None
        neighbour.close()


def test_a_source_without_room_is_refused(lab: Lab, topology: Topology, tmp_path: Path) -> None:
    """Where the set of sources is full, who is not in it is refused: nothing would hold it to a limit."""
    text = emit_ruleset(derive_intents(_two_sources(topology, Limits(connections_per_source=3)))["edge"])
    path = tmp_path / "full.nft"
    path.write_text(re.sub(r"(set counted4_notice {\s+type ipv4_addr\s+size) 4", r"\1 1", text), encoding="utf-8")
    lab.load("edge", path)
    with _server(lab, 4):
        first = _connect(lab.namespace("alpha"), 4)
        assert first is not None
        with first:
            assert _connect(lab.namespace("beta"), 4, _UNANSWERED) is None
            assert lab.counters("edge")["deny_source_connections"] >= 1


_TIMES = {
    "established": 600,
    "syn_sent": 10,
    "syn_recv": 10,
    "fin_wait": 30,
    "close_wait": 30,
    "last_ack": 10,
    "time_wait": 30,
    "unacknowledged": 60,
    "max_retrans": 60,
}
"""Seconds after which connection tracking forgets, as docs/ruleset.md has them."""
_SHORT = 2
_TRACKING = "/proc/sys/net/netfilter/nf_conntrack"


def _read(lab: Lab, key: str) -> int:
    return int(lab.namespace("edge").run(["cat", f"{_TRACKING}_{key}"], timeout=5).stdout)


def test_kernels_forget_silent_connections_soon(lab: Lab) -> None:
    """Every time that a connection may be silent is ours, not the kernel's default."""
    assert {state: _read(lab, f"tcp_timeout_{state}") for state in _TIMES} == _TIMES


@pytest.mark.parametrize("state", ["established", "syn_sent"])
def test_a_silent_connection_gives_its_place_back(lab: Lab, topology: Topology, tmp_path: Path, state: str) -> None:
    """When its time is over, set to two seconds, it carries nothing more, and another one has its place."""
    _reload(lab, _with_limits(topology, Limits(connections=1)), tmp_path)
    short = ["sysctl", "-q", "-w", f"net.netfilter.nf_conntrack_tcp_timeout_{state}={_SHORT}"]
    for firewall in lab.firewalls:
        assert lab.namespace(firewall).run(short, timeout=5).returncode == 0
    with ExitStack() as open_:
        silent = None
        if state == "established":
            open_.enter_context(_server(lab, 4))
            silent = _connect(lab.namespace("alpha"), 4)
            assert silent is not None
            open_.enter_context(silent)
        else:
            assert lab.namespace("gamma").run(["nft", "-f", "-"], timeout=5, input=_DEAF).returncode == 0
            assert _connect(lab.namespace("alpha"), 4, _UNANSWERED) is None
            assert lab.namespace("gamma").run(["nft", "flush", "ruleset"], timeout=5).returncode == 0
            open_.enter_context(_server(lab, 4))
        assert _connect(lab.namespace("alpha"), 4, _UNANSWERED) is None
        time.sleep(_SHORT)
        if silent is not None:
            before = lab.counters("edge")
            silent.sendall(b"late")
            time.sleep(0.1)
            assert _refused(before, lab.counters("edge"))
        following = _connect(lab.namespace("alpha"), 4)
        assert following is not None
        following.close()


_DEAF = """table inet deaf {
    chain input {
        type filter hook input priority 0; policy drop;
        icmpv6 type 135-136 accept
    }
}
"""


def _refused(before: dict[str, int], after: dict[str, int]) -> bool:
    return any(after[name] > before[name] for name in ("deny_invalid", "deny_not_syn"))


def _start(namespace: Namespace, open_: ExitStack) -> None:
    """Send one SYN to gamma's port and do not wait."""

    def attempt() -> None:
        client = open_.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        client.setblocking(False)
        client.connect_ex((ADDRESS[4], PORT))

    namespace.call(attempt)
