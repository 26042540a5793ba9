"""Each kind of signature is raised by traffic that it is for, and by none that it is not for.

Every kind has a capture of its own that must raise it; every other capture must not, unless it is said here.  They
are written and run in the form of suricata-verify; ``NETPOLICY_IDS_CASES=DIR`` keeps them in a new directory.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conformance.lab.rooted import Root
from ids_rules.emit import signatures
from ids_rules.version import NEWEST
from netpolicy.intent.derive import derive_intents
from netpolicy.topology.load import load_topology
from netpolicy.topology.model import Topology
from tests.ids.cases import FIREWALL, TOGETHER, Cases, failed_checks, prepare
from tests.ids.malformed import NO_CAPTURE

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def topology() -> Topology:
    """Return the network of the repository."""
    return load_topology(ROOT / "topology.yaml").topology


@pytest.fixture(scope="module")
def work(topology: Topology, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cases]:
    """Return a tree of cases with the configuration of one engine, certificates pinned, and a capture for each kind."""
    tree = Path(os.environ.get("NETPOLICY_IDS_CASES") or tmp_path_factory.mktemp("signatures") / "cases").absolute()
    cases, _ = prepare(tree, topology, tmp_path_factory.mktemp("identities") / "i", NEWEST)
    return tree, cases


def _kinds() -> list[str]:
    topology = load_topology(ROOT / "topology.yaml").topology
    return sorted({each.id for each in signatures(derive_intents(topology)[FIREWALL]) if not each.silent} - TOGETHER)


def test_every_kind_has_cases(work: tuple[Path, Cases], topology: Topology) -> None:
    """No signature anywhere in the network without a capture for it, and no capture for nothing."""
    everywhere = {
        each.id for intent in derive_intents(topology).values() for each in signatures(intent) if not each.silent
    }
    assert everywhere - set(NO_CAPTURE) == set(work[1]) - {""}


@pytest.mark.parametrize("kind", ["", *_kinds()])
def test_signature(kind: str, work: tuple[Path, Cases]) -> None:
    """Its own capture raises it, and only what may be raised; the good session raises nothing at all."""
    root = Root.find()
    assert root is not None, "make setup"
    assert failed_checks(root, *work, kind) == []
