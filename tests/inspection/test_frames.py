"""Frames that an engine reads otherwise than the kernel behind it: none carries a byte to the far side."""

from __future__ import annotations

import os
import re
import select
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from conformance.frames.conversation import Meeting
from conformance.frames.differential import run_differential
from conformance.frames.run import Line, run_frames
from conformance.frames.shapes import BESIDES, Around, plain
from conformance.lab import Lab
from conformance.lab.rooted import Root, compile_for
from conformance.lab.scope import Scope
from conformance.probe.wire import macs_to, packet_socket, received, send
from ids_rules.tls_policy import EARLY_SEGMENTS
from netpolicy.build import compile_topology
from tests.inspection.living import Living, living_network
from tests.lab.small import AMPLE, PORT, small_topology

_MANY = 60
_BESIDE: Mapping[str, tuple[Mapping[bool, Sequence[tuple[int, int]]], int]] = {
    "before it": ({False: [(-3000, 0)] * _MANY}, 0),
    "before it, from the server": ({True: [(-3000, 0)] * _MANY}, 0),
    "outside of the window": ({False: [(1 << 30, 0)] * _MANY}, 0),
    "acknowledging what is long past": ({False: [(0, 200_000)] * _MANY}, 0),
    "behind a gap": ({False: [(3000 + 2000 * number, 0) for number in range(_MANY)]}, 0),
    "behind gaps of both": (
        {answer: [(3000 + 2000 * each, 0) for each in range(count)] for answer, count in ((True, 20), (False, _MANY))},
        EARLY_SEGMENTS,
    ),
}
"""Segments of the client, and of the server: how far ahead of its stream, and how far behind in what it acknowledges;
and how many may cross."""
_WAYS = [("edge", "lan", False), ("core", "wan", False), ("core", "lan", True), ("edge", "wan", True)]
"""Firewall, interface, and whether frames come from the server's side."""


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Living]:
    """Bring the network up with engines."""
    root = Root.find()
    assert root is not None, "make setup"
    with living_network(root, tmp_path_factory.mktemp("frames"), "framed") as found:
        yield found


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Bring the network up without engines."""
    topology = small_topology("unframed", limits=AMPLE)
    build = tmp_path_factory.mktemp("kernels") / "build"
    compile_topology(topology, build)
    with Lab(topology, build) as lab:
        yield lab


def _line(lab: Lab, family: int, firewall: str, interface: str, answer: bool) -> Line:
    nodes = [lab.topology.nodes[name] for name in ("alpha", "gamma")]
    ends = [next(each for each in node.interface.addresses if each.version == family) for node in nodes]
    return Line(nodes[0], nodes[1], (ends[0], ends[1]), PORT, firewall, interface, answer)


def _hello() -> bytes:
    """Return a ClientHello as the flow wants it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["app/1"])
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    said = ssl.MemoryBIO()
    session = context.wrap_bio(ssl.MemoryBIO(), said, server_hostname="gamma.framed.internal")
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    return said.read()


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(("firewall", "interface", "answer"), _WAYS)
def test_no_shape_passes_firewalls_with_engines(
    family: int, firewall: str, interface: str, answer: bool, living: Living
) -> None:
    """Whatever stands around a request: it arrives at the wire, and the application at the far end reads nothing."""
    lab, _ = living
    line = _line(lab, family, firewall, interface, answer)
    tried = run_frames(lab, Scope(lab), line, good=None if answer else _hello())
    assert len(tried) > 90
    assert [each.label for each in tried if not each.arrived] == []
    assert {each.label: each.read for each in tried if each.read} == {}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(("firewall", "interface", "answer"), _WAYS)
def test_no_shape_passes_kernels_alone(family: int, firewall: str, interface: str, answer: bool, kernels: Lab) -> None:
    """The kernel's own door holds by itself; the packet in a plain frame passes."""
    line = _line(kernels, family, firewall, interface, answer)
    tried = run_frames(kernels, Scope(kernels), line, good=os.urandom(16).hex().encode())
    assert [each.label for each in tried if not each.arrived] == []
    assert {each.label for each in tried if each.read} == {BESIDES}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("beside", sorted(_BESIDE))
def test_no_tunnel_beside_a_stream(family: int, beside: str, living: Living) -> None:
    """What no TCP takes for the next of its stream crosses no inspected flow, or a few segments of it in all."""
    lab, _ = living
    line, (frames, most) = _line(lab, family, "edge", "lan", False), _BESIDE[beside]
    here, there = (lab.namespace(node.id) for node in (line.source, line.destination))
    with Meeting.held(here, line.addresses[0], there, line.addresses[1], PORT) as meeting, ExitStack() as stack:
        conversation = meeting.open(stack)
        conversation.client.sendall(_hello())
        assert select.select([conversation.server], [], [], 5.0)[0]
        entered, ends = [], [stack.enter_context(each.call(packet_socket("eth0"))) for each in (here, there)]
        for answer, firewall in ((True, "core"), (False, "edge")):
            entered.append(stack.enter_context(lab.namespace(firewall).call(packet_socket("lan"))))
            wire = stack.enter_context(lab.wire.call(packet_socket(lab.wire_port(firewall, "lan"))))
            macs = macs_to(lab.topology.firewalls[firewall], "lan")
            for number, (ahead, late) in enumerate(frames.get(answer, ())):
                said = b"GET /%d" % number + bytes(1000)
                segment = conversation.segment(said, answer=answer, ahead=ahead, late=late)
                send(wire, plain(Around(macs[:6], macs[6:], segment, said)))
            time.sleep(0.5)
        came, arrived = (
            sum(b"GET /" in frame for each in some for frame in received(each)) for some in (entered, ends)
        )
    assert came == sum(map(len, frames.values()))
    assert arrived <= most


@pytest.mark.parametrize("doors", [True, False])
def test_random_frames(doors: bool, tmp_path: Path) -> None:
    """A few thousand: no byte comes out that the engine has not judged; without all doors some do."""
    root = Root.find()
    assert root is not None, "make setup"
    topology, build = small_topology("random-frames", limits=AMPLE), tmp_path / "build"
    compile_for(root, topology, build)
    if not doors:
        (build / "core/frames.nft").write_text("table netdev netpolicy_frames { }\n")
        engine = build / "core/suricata/engine-wan.yaml"
        engine.write_text(re.sub(r" +bpf-filter: .*\n", "", engine.read_text()))
        rules = build / "core/suricata/netpolicy.rules"
        rules.write_text(re.sub(r"(?m)^.*signature decoder-.*\n", "", rules.read_text()))
    with Lab(topology, build, root) as lab, lab.isolated():
        lines = [_line(lab, family, "core", "wan", False) for family in (4, 6)]
        found = run_differential(lab, Scope(lab), lines, seed=16, frames=3000)
    assert found.connections > 700
    assert bool(found.unseen) is not doors


def test_random_ends(tmp_path: Path) -> None:
    """No connection goes on unseen behind a FIN, a RST, a SYN, urgent data or numbers that the kernel does not take."""
    root = Root.find()
    assert root is not None, "make setup"
    topology = small_topology("random-ends", limits=AMPLE)
    compile_for(root, topology, tmp_path / "build")
    with Lab(topology, tmp_path / "build", root) as lab, lab.isolated():
        lines = [_line(lab, family, "core", "wan", False) for family in (4, 6)]
        kinds = ("flags", "nothing", "sequence numbers", "bits of TCP")
        found = run_differential(lab, Scope(lab), lines, seed=5, frames=12_000, among=kinds)
    assert found.connections > 2800
    assert found.unseen == []
