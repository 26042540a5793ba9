"""The lab: a topology that lives, with the very files of its build."""

from __future__ import annotations

import json
import shutil
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from conformance.lab import Lab, LabError
from tests.lab.small import PORT, small_topology

_SOL_PACKET = 263
_IGNORE_OUTGOING = 23
_ETH_P_ALL = 3


@contextmanager
def listening(lab: Lab, owner: str, address: str, port: int) -> Iterator[socket.socket]:
    """Yield a TCP socket of a node that listens."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with lab.namespace(owner).call(lambda: socket.create_server((address, port), family=family)) as server:
        server.settimeout(3)
        yield server


def connect(lab: Lab, owner: str, address: str, port: int, seconds: float = 5.0) -> bool:
    """Say whether a TCP connection from a node comes about in time."""

    def attempt() -> bool:
        try:
            socket.create_connection((address, port), timeout=seconds).close()
        except OSError:
            return False
        return True

    return lab.namespace(owner).call(attempt)


def packet_socket(lab: Lab, device: str) -> socket.socket:
    """Return a raw socket on a wire port that sees only what comes in by it."""

    def make() -> socket.socket:
        handle = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        handle.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        handle.bind((device, _ETH_P_ALL))
        handle.settimeout(5)
        return handle

    return lab.wire.call(make)


def load_all(lab: Lab, rulesets: list[Path]) -> None:
    """Load rulesets into a firewall, one after the other."""
    for ruleset in rulesets:
        lab.load("edge", ruleset)


@pytest.mark.parametrize("address", ["10.77.3.10", "fd77:0:0:3::a"])
def test_a_permitted_flow_passes_and_is_counted(lab: Lab, address: str) -> None:
    """What the topology permits passes through both firewalls, and each counts one connection."""
    before = [lab.counters(firewall)["flow_notice"] for firewall in ("edge", "core")]
    with listening(lab, "gamma", address, PORT):
        assert connect(lab, "alpha", address, PORT)
    after = [lab.counters(firewall)["flow_notice"] for firewall in ("edge", "core")]
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 1]


@pytest.mark.parametrize("address", ["10.77.3.10", "fd77:0:0:3::a"])
def test_what_no_flow_permits_dies_at_the_first_firewall(lab: Lab, address: str) -> None:
    """A connection that no flow permits does not come about though its server listens, and its counter rises."""
    before = lab.counters("edge")["deny_no_flow"], lab.counters("core")["deny_no_flow"]
    with listening(lab, "gamma", address, PORT):
        assert not connect(lab, "beta", address, PORT, 1.0)
    assert lab.counters("edge")["deny_no_flow"] > before[0]
    assert lab.counters("core")["deny_no_flow"] == before[1]


def test_neighbours_on_a_segment_reach_each_other(lab: Lab) -> None:
    """Within a segment no firewall stands between nodes, in either family."""
    for address in ("10.77.1.11", "fd77:0:0:1::b"):
        with listening(lab, "beta", address, 7):
            assert connect(lab, "alpha", address, 7)


def test_interfaces_have_the_names_and_addresses_of_the_topology(lab: Lab) -> None:
    """Every interface carries the topology's MAC, on nodes and firewalls."""
    for owner, interface in (("alpha", "eth0"), ("edge", "lan"), ("core", "wan")):
        node = lab.topology.nodes.get(owner)
        interfaces = (node.interface,) if node else lab.topology.firewalls[owner].interfaces
        mac = next(each.mac for each in interfaces if each.name == interface)
        assert lab.namespace(owner).call(partial(_mac, interface)) == mac


def test_frames_on_the_wire_carry_full_checksums(lab: Lab) -> None:
    """A capture at a wire port shows TCP checksums as a real network carries them."""
    with packet_socket(lab, lab.wire_port("alpha", "eth0")) as capture, listening(lab, "beta", "10.77.1.11", 7):
        assert connect(lab, "alpha", "10.77.1.11", 7)
        frame = next(frame for frame in _received(capture) if frame[12:14] == b"\x08\x00" and frame[23] == 6)
    segment, pseudo = frame[34:], frame[26:34] + struct.pack("!HH", 6, len(frame) - 34)
    assert _ones_complement(pseudo + segment) == 0xFFFF


def test_isolated_parts_all_interfaces(lab: Lab) -> None:
    """While isolated, neighbours do not reach each other; a frame reaches its interface; all is joined again after."""
    with listening(lab, "beta", "10.77.1.11", 7):
        with lab.isolated():
            assert not connect(lab, "alpha", "10.77.1.11", 7, 1.0)
        assert connect(lab, "alpha", "10.77.1.11", 7)


def test_isolated_frames_cross_a_firewall_and_no_further(lab: Lab) -> None:
    """While isolated, a permitted SYN sent on a wire port leaves the firewall and reaches no other."""
    lan, wan = lab.topology.firewalls["edge"].interfaces
    source, destination = socket.inet_aton("10.77.1.10"), socket.inet_aton("10.77.3.10")
    header = struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, 0, 64, 6, 0) + source + destination
    header = header[:10] + struct.pack("!H", _ones_complement(header) ^ 0xFFFF) + header[12:]
    syn = struct.pack("!HHIIBBHHH", 40000, PORT, 1, 0, 0x50, 0x02, 1024, 0, 0)
    checksum = _ones_complement(source + destination + struct.pack("!HH", 6, 20) + syn) ^ 0xFFFF
    syn = syn[:16] + struct.pack("!H", checksum) + syn[18:]
    macs = bytes.fromhex(lan.mac.replace(":", "")) + bytes.fromhex("02770000010a")
    frame = macs + b"\x08\x00" + header + syn
    before = lab.counters("core")
    with (
        lab.isolated(),
        packet_socket(lab, lab.wire_port("edge", lan.name)) as inlet,
        packet_socket(lab, lab.wire_port("edge", wan.name)) as outlet,
    ):
        inlet.send(frame)
        seen = next(each for each in _received(outlet) if each[26:34] == source + destination)
    assert seen[34:] == syn
    assert lab.counters("core") == before
    lab.flush_conntrack("edge")


def test_isolation_is_not_nested(lab: Lab) -> None:
    """A second isolation is refused, since the end of the inner one would join what the outer one parted."""
    with lab.isolated(), pytest.raises(LabError, match="isolated already"), lab.isolated():
        pass


def test_flushing_forgets_connections(lab: Lab) -> None:
    """After flush_conntrack() the firewall's kernel lists no connection."""
    with listening(lab, "gamma", "10.77.3.10", PORT):
        assert connect(lab, "alpha", "10.77.3.10", PORT)
    table = lab.namespace("edge")
    assert table.call(Path("/proc/thread-self/net/nf_conntrack").read_text)
    lab.flush_conntrack("edge")
    assert not table.call(Path("/proc/thread-self/net/nf_conntrack").read_text)


def test_counters_are_those_that_nft_lists(lab: Lab) -> None:
    """counters() reads what nft reads, and all of it."""
    listing = lab.namespace("edge").run(["nft", "-j", "list", "counters", "table", "inet", "netpolicy"], timeout=5)
    listed = [entry["counter"] for entry in json.loads(listing.stdout)["nftables"] if "counter" in entry]
    assert lab.counters("edge") == {counter["name"]: counter["packets"] for counter in listed}


def test_counters_without_a_table_are_an_error(lab: Lab, build: Path, tmp_path: Path) -> None:
    """A firewall without the table has no counters of zero: it has none."""
    empty = tmp_path / "empty.nft"
    empty.write_text("delete table inet netpolicy\n")
    lab.load("edge", empty)
    try:
        with pytest.raises(LabError, match="edge: no counters in table netpolicy"):
            lab.counters("edge")
    finally:
        lab.load("edge", build / "edge/nftables.nft")


def test_counters_are_of_one_ruleset(lab: Lab, build: Path, tmp_path: Path) -> None:
    """While rulesets are replaced, counters() never mixes two of them."""
    rulesets = []
    for packets in (1, 2):
        counters = "".join(f"counter c{number} {{ packets {packets} bytes 0 }}\n" for number in range(2000))
        rulesets.append(tmp_path / f"{packets}.nft")
        head = "table inet netpolicy\ndelete table inet netpolicy\n"
        rulesets[-1].write_text(f"{head}table inet netpolicy {{\n{counters}}}\n")
    try:
        lab.load("edge", rulesets[0])
        with ThreadPoolExecutor(1) as loader:
            loading = loader.submit(load_all, lab, rulesets * 3)
            seen = [lab.counters("edge")]
            while not loading.done():
                seen.append(lab.counters("edge"))
            loading.result()
        assert {len(counters) for counters in seen} == {2000}
        assert all(len(set(counters.values())) == 1 for counters in seen)
    finally:
        lab.load("edge", build / "edge/nftables.nft")


def test_a_refused_ruleset_leaves_the_old_one(lab: Lab, tmp_path: Path) -> None:
    """load() raises with nft's own message, and the firewall keeps what it had."""
    broken = tmp_path / "broken.nft"
    broken.write_text("flush ruleset\ntable inet netpolicy { chain forward { tcp dport nonsense accept } }\n")
    before = lab.namespace("edge").run(["nft", "--stateless", "list", "ruleset"], timeout=5).stdout
    with pytest.raises(LabError, match=r"(?s)edge: nft refused .*broken\.nft.*Error"):
        lab.load("edge", broken)
    assert lab.namespace("edge").run(["nft", "--stateless", "list", "ruleset"], timeout=5).stdout == before


def test_a_loaded_ruleset_replaces_the_old_one(lab: Lab, build: Path, tmp_path: Path) -> None:
    """load() puts another ruleset in place, and counters() reads that one."""
    try:
        changed = tmp_path / "changed.nft"
        text = (build / "edge/nftables.nft").read_text(encoding="utf-8")
        changed.write_text(text.replace("counter deny_no_flow { }", "counter deny_no_flow { packets 5 bytes 5 }"))
        assert changed.read_text() != text
        lab.load("edge", changed)
        assert lab.counters("edge")["deny_no_flow"] == 5
    finally:
        lab.load("edge", build / "edge/nftables.nft")


@pytest.mark.parametrize("owner", ["nobody", "alpha"])
def test_unknown_owners_are_refused(lab: Lab, owner: str) -> None:
    """Naming something that is no such interface or firewall is a LabError, not a KeyError."""
    with pytest.raises(LabError, match=owner):
        lab.wire_port(owner, "lan")
    with pytest.raises(LabError, match=owner):
        lab.counters(owner)


@pytest.mark.usefixtures("able")
@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("sysctl.conf", "net/ipv4/no_such_key = 1\n", "no_such_key"),
        ("guard.nft", "table inet netpolicy_guard { chain c { nonsense } }\n", "nonsense"),
        ("ip.batch", "link set dev nowhere up\n", "nowhere"),
        ("forwarding.conf", "net/ipv4/ip_forward = many\n", "ip_forward"),
    ],
)
def test_a_file_that_is_not_taken_whole_ends_the_lab(
    build: Path, tmp_path: Path, file: str, content: str, said: str
) -> None:
    """A build file that the kernel or a tool refuses stops the lab, with the firewall, file and message named."""
    damaged = shutil.copytree(build, tmp_path / "build")
    (damaged / "core" / file).write_text(content)
    with pytest.raises(LabError, match=rf"(?s)core: .*{file}.*{said}"), Lab(small_topology(), damaged):
        pytest.fail("the lab came up")


@pytest.mark.usefixtures("able")
def test_a_missing_file_ends_the_lab(build: Path, tmp_path: Path) -> None:
    """A firewall never runs with a part of its build."""
    damaged = shutil.copytree(build, tmp_path / "build")
    (damaged / "edge/guard.nft").unlink()
    with pytest.raises(LabError, match=r"edge/guard\.nft is missing"), Lab(small_topology(), damaged):
        pytest.fail("the lab came up")


def test_a_build_of_another_topology_is_refused(build: Path) -> None:
    """A build that was compiled from another input is not run."""
    other = replace(small_topology(), digest="1" * 64)
    with pytest.raises(LabError, match="compiled from another topology"), Lab(other, build):
        pytest.fail("the lab came up")


def test_a_directory_that_is_no_build_is_refused(tmp_path: Path) -> None:
    """Without a manifest nothing is run."""
    with pytest.raises(LabError, match="is no build"), Lab(small_topology(), tmp_path):
        pytest.fail("the lab came up")


def _mac(device: str) -> str:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as handle:
        handle.bind((device, 0))
        mac: bytes = handle.getsockname()[4]
    return mac.hex(":")


def _received(handle: socket.socket) -> Iterator[bytes]:
    while True:
        yield handle.recv(65536)


def _ones_complement(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total
