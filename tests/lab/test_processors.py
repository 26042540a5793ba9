"""Which processors inspect and which route, and that a lab holds to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conformance.lab import Lab
from conformance.lab.rooted import Root
from conformance.lab.sysfs import show_devices
from netpolicy.build import compile_topology
from netpolicy.processors import Processors, confine, mask, steer
from netpolicy.topology.model import Assurance
from tests.lab.small import small_topology


@pytest.mark.parametrize(
    ("available", "inspecting", "routing"),
    [
        ({0}, {0}, {0}),
        ({0, 1}, {1}, {0}),
        ({2, 5, 7}, {5, 7}, {2}),
        ({0, 1, 2, 3}, {2, 3}, {0, 1}),
    ],
)
def test_division(available: set[int], inspecting: set[int], routing: set[int]) -> None:
    """Both have at least one; engines have the upper half."""
    assert Processors.divided(available) == Processors(frozenset(inspecting), frozenset(routing))


def test_no_processor() -> None:
    """Nothing cannot be divided."""
    with pytest.raises(ValueError, match="no processor"):
        Processors.divided(())


@pytest.mark.parametrize(
    ("processors", "text"),
    [((0,), "1"), ((0, 1), "3"), ((31,), "80000000"), ((32,), "1,00000000"), ((0, 64), "1,00000000,00000001")],
)
def test_mask(processors: tuple[int, ...], text: str) -> None:
    """As sysfs writes it."""
    assert mask(processors) == text


def test_refusals() -> None:
    """A device or a process that is not there."""
    with pytest.raises(FileNotFoundError, match="no receive queue"):
        steer(["nothing"], {0})
    with pytest.raises(OSError, match="No such file"):
        confine(2**22 + 1, {0})


def test_lab(tmp_path: Path) -> None:
    """Engines keep to theirs, and every device of a node or firewall is steered to the others."""
    root = Root.find()
    assert root is not None, "make setup"
    topology = small_topology("divided", Assurance.INSPECT)
    compile_topology(topology, tmp_path / "build")
    wanted = Processors.here()

    def steered() -> set[str]:
        show_devices()
        return {queue.read_text().strip() for queue in Path("/sys/class/net").glob("*/queues/rx-*/rps_cpus")}

    with Lab(topology, tmp_path / "build", root) as lab:
        lab.divide(wanted)
        for engine in lab.engines.values():
            threads = Path(f"/proc/{engine.pid}/task").iterdir()
            assert {frozenset(os.sched_getaffinity(int(each.name))) for each in threads} == {wanted.inspecting}
        for name in ("alpha", *topology.firewalls):
            assert {int(each.replace(",", ""), 16) for each in lab.namespace(name).call(steered)} == {
                int(mask(wanted.routing).replace(",", ""), 16)
            }
