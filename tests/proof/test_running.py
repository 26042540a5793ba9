"""A running firewall against its files: what is beside its rules, and what the kernel has that no file says."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ids_rules.lock import lock_path, read_lock
from netpolicy.build import compile_files, compile_topology, write_build
from netpolicy.cli import main
from netpolicy.proof.prove import TITLES
from netpolicy.proof.running import ELSEWHERE
from netpolicy.proof.settled import interfaces_of, network_differs, settings_differ
from netpolicy.proof.surroundings import UNLISTED, surroundings
from netpolicy.rooted import Root
from netpolicy.topology.model import Assurance, Topology
from tests.docs.source import ROOT
from tests.lab.small import small_topology
from tests.proof.wires import Wires, wires
from tests.topology.writing import write

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="rulesets are loaded as root")

_NETPOLICY = [sys.executable, "-c", "import sys; from netpolicy.cli import main; sys.exit(main(sys.argv[1:]))"]
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(ROOT)}


@pytest.fixture(name="topology", scope="module")
def _topology() -> Topology:
    return small_topology("running", Assurance.INSPECT)


@pytest.fixture(name="build", scope="module")
def _build(topology: Topology, tmp_path_factory: pytest.TempPathFactory) -> Path:
    build = tmp_path_factory.mktemp("running") / "build"
    compile_topology(topology, build)
    return build


@pytest.fixture(name="wired", scope="module")
def _wired(topology: Topology, build: Path) -> Iterator[Wires]:
    """Return a running firewall; who changes something undoes it."""
    with wires(topology, build) as wired:
        yield wired


def _do(wired: Wires, command: str) -> None:
    done = wired.kernel.run(["sh", "-c", command], timeout=60, env=_ENVIRONMENT)
    assert done.returncode == 0, done.stderr


def _asked(wired: Wires, *arguments: str) -> tuple[int, str]:
    """Ask about a running firewall; return how the answer ended, and all of it."""
    done = wired.kernel.run([*_NETPOLICY, *arguments], timeout=300, env=_ENVIRONMENT)
    return done.returncode, done.stdout + done.stderr


BESIDE: dict[str, tuple[str, str, str]] = {
    "nothing": ("true", "true", ""),
    "a filter at a device": ("tc qdisc add dev lo clsact", "tc qdisc del dev lo clsact", "discipline clsact at lo"),
    "a bridge": (
        "ip link add b0 type bridge && ip link add d0 type veth peer d1 && ip link set d0 master b0",
        "ip link del b0 && ip link del d0",
        "d0 belongs to",
    ),
    "IPsec": (
        "ip xfrm policy add src 10.0.0.0/8 dst 10.0.0.0/8 dir fwd",
        "ip xfrm policy del src 10.0.0.0/8 dst 10.0.0.0/8 dir fwd",
        "an IPsec policy",
    ),
}
"""Commands that put something beside the rules, and take it away; and what is told."""


@pytest.mark.parametrize("name", BESIDE)
def test_beside(wired: Wires, name: str) -> None:
    """What decides about packets and is no rule is told."""
    command, undo, what = BESIDE[name]
    _do(wired, command)
    found = wired.kernel.call(surroundings)
    _do(wired, undo)
    assert what in "; ".join(found.found)
    assert bool(found.found) is bool(what)


def test_sockets_for_frames(wired: Wires) -> None:
    """A program that could copy frames from wire to wire, past all rules, is told."""
    kept = wired.kernel.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
    with kept:
        found = wired.kernel.call(surroundings)
    assert found.found == ("sockets for whole frames, which no rule sees: 1 (AF_PACKET)",)
    assert not wired.kernel.call(surroundings).found


SETTLED: dict[str, tuple[str, str, str]] = {
    "nothing": ("true", "true", ""),
    "a route": (
        "ip route add 192.0.2.0/24 via 10.77.2.2",
        "ip route del 192.0.2.0/24",
        "not in the files: route unicast 192.0.2.0/24 10.77.2.2 wan main",
    ),
    "a route of another table": (
        "ip route add default via 10.77.2.2 table 55",
        "ip route flush table 55",
        "not in the files: route unicast 0.0.0.0/0 10.77.2.2 wan 55",
    ),
    "a route that claims to be the kernel's": (
        "ip route add 192.0.2.0/24 dev wan proto kernel scope link",
        "ip route del 192.0.2.0/24",
        "not in the files: route unicast 192.0.2.0/24 - wan main",
    ),
    "a route of IPv6": (
        "ip -6 route add 2001:db8::/32 dev wan",
        "ip -6 route del 2001:db8::/32",
        "not in the files: route unicast 2001:db8::/32 - wan main",
    ),
    "a route to oneself": (
        "ip route add local 192.0.2.9 dev lo",
        "ip route del local 192.0.2.9 dev lo",
        "not in the files: route local 192.0.2.9/32 - lo local",
    ),
    "a route with a header of its own": (
        "ip -6 route add 2001:db8::/32 encap seg6 mode encap segs 2001:db8::1 dev wan",
        "ip -6 route del 2001:db8::/32",
        "encap-type",
    ),
    "a route of two ways": (
        "ip route add 192.0.2.0/24 nexthop via 10.77.2.2 nexthop via 10.77.1.10",
        "ip route del 192.0.2.0/24",
        "nexthops",
    ),
    "a route lost": (
        "ip route del 10.77.3.0/24",
        "ip route add 10.77.3.0/24 via 10.77.2.2 dev wan",
        "missing: route unicast 10.77.3.0/24",
    ),
    "a policy rule": (
        "ip rule add from 10.77.1.0/24 lookup 55 priority 9",
        "ip rule del priority 9",
        "not in the files: rule 55 9 from 0a4d0100",
    ),
    "a policy rule of the kernel's lost": (
        "ip rule del priority 32767",
        "ip rule add lookup default priority 32767",
        "missing: rule default 32767",
    ),
    "a neighbour": (
        "ip neigh replace 10.77.1.10 lladdr 02:77:00:00:01:66 dev lan nud permanent",
        "ip neigh replace 10.77.1.10 lladdr 02:77:00:00:01:0a dev lan nud permanent",
        "not in the files: neighbour 10.77.1.10 02:77:00:00:01:66 lan",
    ),
    "a neighbour that is not asked for": (
        "ip neigh add 10.77.1.99 lladdr 02:77:00:00:01:66 dev lan nud noarp",
        "ip neigh del 10.77.1.99 dev lan",
        "not in the files: neighbour 10.77.1.99",
    ),
    "a neighbour answered for": (
        "ip neigh add proxy 10.77.1.99 dev wan",
        "ip neigh del proxy 10.77.1.99 dev wan",
        "not in the files: neighbour 10.77.1.99 proxy wan",
    ),
    "an address": (
        "ip address add 10.77.1.77/24 dev lan",
        "ip address del 10.77.1.77/24 dev lan",
        "not in the files: address 10.77.1.77/24 lan",
    ),
    "an address of the loopback device": (
        "ip address add 10.77.1.77/32 dev lo",
        "ip address del 10.77.1.77/32 dev lo",
        "not in the files: address 10.77.1.77/32 lo",
    ),
    "a longer line": ("ip link set wan mtu 1400", "ip link set wan mtu 1500", "not in the files: link wan 1400"),
    "a setting": (
        "sysctl -qw net.ipv4.conf.all.rp_filter=0",
        "sysctl -qw net.ipv4.conf.all.rp_filter=1",
        "net/ipv4/conf/all/rp_filter is 0, in the files 1",
    ),
    "a setting of one interface": (
        "sysctl -qw net.ipv4.conf.lan.proxy_arp=1",
        "sysctl -qw net.ipv4.conf.lan.proxy_arp=0",
        "net/ipv4/conf/lan/proxy_arp is 1, in the files 0",
    ),
}
"""Commands that change a running firewall, and back; and what is told."""


@pytest.mark.parametrize("name", SETTLED)
def test_settled(wired: Wires, build: Path, name: str) -> None:
    """What no file of the build says, and what the kernel has lost of it, is told; as compiled there is nothing."""
    command, undo, what = SETTLED[name]
    files = build / "edge"

    def asked() -> list[str]:
        return [*network_differs(files, interfaces_of(files)), *settings_differ(files)]

    _do(wired, command)
    found = wired.kernel.call(asked)
    _do(wired, undo)
    assert what in "; ".join(found), found
    assert bool(found) is bool(what), found
    assert not wired.kernel.call(asked)


REFUSED: dict[str, tuple[str, str]] = {
    "a table that sleeps": ("nft add table inet netpolicy '{ flags dormant; }'", "flags dormant"),
    "another's table of a bridge": ("nft add table bridge x", "family bridge"),
    "a filter at a device": ("tc qdisc add dev lo clsact", "a queueing discipline clsact at lo"),
    "an element with a time limit": (
        (
            "nft 'add set inet netpolicy s { type mark; flags timeout; elements = { 1 timeout 1h }; }' && "
            "nft insert rule inet netpolicy forward meta mark @s drop"
        ),
        "expires of an element",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_diff_refuses(topology: Topology, build: Path, name: str) -> None:
    """What is beside the rules of a running kernel, and what has no meaning here, ends 'diff … live' by its name."""
    command, what = REFUSED[name]
    with wires(topology, build) as wired:
        _do(wired, command)
        code, said = _asked(wired, "diff", str(build), "live", "--firewall", "edge")
    assert what in said
    assert code == 2, said


def test_diff(topology: Topology, build: Path) -> None:
    """'diff … live' has all of it, and what it has not looked at."""
    with wires(topology, build) as wired:
        code, said = _asked(wired, "diff", str(build), "live", "--firewall", "edge", "--json")
        same = json.loads(said)
        assert (code, same["different"], same["beside"]) == (0, False, []), said
        assert same["not_looked_at"] in ([], [UNLISTED])
        _do(wired, "ip rule add lookup 55 priority 9; nft delete table netdev netpolicy_frames")
        code, said = _asked(wired, "diff", str(build), "live", "--firewall", "edge")
    assert code == 1
    assert "not in the files: rule 55 9" in said
    assert "frames that wan takes from its wire are not those of its files" in said
    assert "differences beside the rules (1 of 1 firewalls differ)" in said


def test_prove_live(network: Topology, tmp_path: Path) -> None:
    """What runs is proven as it runs; another rule, a route or a setting contradicts it, whatever the files say."""
    firewall, build = "shinagawa-line-fw", tmp_path / "build"
    write_build(build, compile_files(network, read_lock(lock_path(ROOT / "topology.yaml"))))
    live = ("prove", str(ROOT / "topology.yaml"), "--build", str(build), "--live", "--firewall", firewall)
    with wires(network, build, firewall) as wired:
        ended, said = _asked(wired, *live, "--json")
        record = json.loads(said)
        assert (ended, [each["findings"] for each in record["theorems"] if not each["holds"]]) == (0, [])
        assert {each["id"] for each in record["theorems"]} == {*TITLES, "running"} - {"pairs", "invariant"}
        assert set(ELSEWHERE) <= set(record["not_looked_at"]) <= {UNLISTED, *ELSEWHERE}
        _do(wired, "nft insert rule inet netpolicy forward meta mark set 0x4e000000 accept")
        _do(wired, "ip rule add lookup 55 priority 9 && sysctl -qw net.ipv4.conf.all.rp_filter=0")
        ended, said = _asked(wired, *live)
    assert ended == 1
    assert "✗ exact" in said
    assert "passes on what no flow permits" in said
    assert f"{firewall}: not in the files: rule 55 9" in said
    assert "net/ipv4/conf/all/rp_filter is 0, in the files 1" in said
    assert "NOT proven: 1 firewall of" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--live"], "--live and --firewall go together"),
        (["--firewall", "shinagawa-line-fw"], "--live and --firewall go together"),
        (["--live", "--firewall", "shinagawa-line-fv"], "did you mean 'shinagawa-line-fw'?"),
        (["--live", "--firewall", "shinagawa-line-fw", "--record", "x"], "a record is about files"),
    ],
)
def test_calls(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    """What does not go together is said, and nothing is proven."""
    assert main(["prove", str(ROOT / "topology.yaml"), *arguments]) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert "proven" not in told.out


def test_without_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the engines and relays cannot be asked, nothing is proven, and the machine lacks something."""
    monkeypatch.setattr(Root, "find", lambda: None)
    topology, record = tmp_path / "topology.yaml", tmp_path / "record.json"
    write(topology)
    assert main(["prove", str(topology), "--record", str(record)]) == 3
    told = capsys.readouterr()
    assert "engines and relays were not asked about their files" in told.err
    assert "NOT proven" in told.out
    assert json.loads(record.read_text(encoding="utf-8"))["holds"] is False
