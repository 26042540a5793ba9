"""The theorem about frames: what a kernel takes from its wires, read back from it, against the topology."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from netpolicy.build import compile_topology
from netpolicy.proof.frames import Doors, frames, read_frames
from netpolicy.proof.terms import RefusedError
from netpolicy.topology.model import Firewall
from tests.lab.small import small_topology

_FRAMES = "table netdev netpolicy_frames"
_NO_CHAIN = f"{_FRAMES}\ndelete {_FRAMES}\n{_FRAMES} {{ }}\n"
_EDITS: dict[str, tuple[Callable[[str], str], str]] = {
    "a tag": (lambda text: text.replace("ether type ip6", "ether type { ip6, 0x8100 }"), "0x8100"),
    "another type": (lambda text: text.replace("ether type ip6", "ether type { ip6, 0x88b6 }"), "0x88b6"),
    "every IPv4": (
        lambda text: text.replace("ether type ip meta pkttype host", "ether type ip"),
        "0x0800, to broadcast",
    ),
    "answers to ARP": (lambda text: text.replace("operation request", "operation { request, reply }"), "operation 2"),
    "questions for others": (lambda text: text.replace(" arp daddr ip { 10.77.1.1 }", ""), "about 192.0.2.1"),
    "no IPv6": (lambda text: text.replace("ether type ip6", "ether type 0x86de"), "0x86dd"),
    "no verdict": (lambda text: text.replace("counter name deny_frame drop", "accept"), "0x0003"),
    "another priority": (lambda text: text.replace("priority -500", "priority -400"), "priority -500"),
    "another device": (
        lambda text: text.replace('device "lan"', 'device "lo"'),
        "no chain stands at the ingress of lan",
    ),
    "nothing": (lambda _text: _NO_CHAIN, "no chain stands at the ingress of lan"),
}


@pytest.fixture(scope="module")
def edge() -> Firewall:
    """Return a firewall with both families."""
    return small_topology().firewalls["edge"]


def _read(build: Path, firewall: Firewall) -> Doors:
    paths = [build / firewall.id / name for name in ("guard.nft", "frames.nft", "nftables.nft")]
    (found,) = read_frames([(paths, [each.name for each in firewall.interfaces])])
    return found


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a build of the small network."""
    out = tmp_path_factory.mktemp("frames") / "build"
    compile_topology(small_topology(), out)
    return out


def test_what_is_compiled_holds(build: Path, edge: Firewall) -> None:
    """Both interfaces, read back from a kernel."""
    assert list(frames(edge, _read(build, edge))) == []


@pytest.mark.parametrize("name", _EDITS)
def test_an_edit_is_found(name: str, build: Path, edge: Firewall, tmp_path: Path) -> None:
    """With a frame, or the chain that is missing."""
    edit, told = _EDITS[name]
    path = build / "edge/frames.nft"
    edited = edit(path.read_text())
    assert edited != path.read_text()
    (tmp_path / "edge").mkdir()
    for other in ("guard.nft", "nftables.nft"):
        (tmp_path / "edge" / other).write_text((build / "edge" / other).read_text())
    (tmp_path / "edge/frames.nft").write_text(edited)
    found = list(frames(edge, _read(tmp_path, edge)))
    assert any(told in str(each) for each in found), found


def test_a_network_of_one_family_takes_no_other(build: Path, edge: Firewall) -> None:
    """Where an interface has no IPv6, its EtherType must not pass, and where it has no IPv4 neither IPv4 nor ARP."""
    doors = _read(build, edge)
    for version, told in ((4, "0x86dd"), (6, "0x0800")):
        interfaces = tuple(
            replace(each, addresses=tuple(a for a in each.addresses if a.version == version))
            for each in edge.interfaces
        )
        single = replace(edge, interfaces=interfaces)
        assert any(told in str(each) for each in frames(single, doors))


def test_what_is_not_known_is_refused(build: Path, edge: Firewall, tmp_path: Path) -> None:
    """By its name."""
    (tmp_path / "edge").mkdir()
    for name in ("guard.nft", "nftables.nft", "frames.nft"):
        text = (build / "edge" / name).read_text()
        (tmp_path / "edge" / name).write_text(text.replace("ether type ip6 meta", "vlan id 3 ether type ip6 meta"))
    with pytest.raises(RefusedError, match="vlan"):
        _read(tmp_path, edge)
