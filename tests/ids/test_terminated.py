"""TLS 1.3 for a relay, as captures: what the engine holds it to, in both forms of the signatures."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from conformance.lab.rooted import Root
from conformance.pki import issue_identities
from ids_rules.version import NEWEST, Suricata
from netpolicy.build import compile_topology
from netpolicy.topology.model import Assurance
from tests.ids.engine import replay
from tests.ids.sessions import MUCH, Sessions, packets
from tests.ids.transcript import Ends
from tests.lab.small import PORT, small_topology

ROOT = Path(__file__).parents[2]
_ENDS = Ends("10.77.1.10", "10.77.3.10", 50001, PORT)
_GOOD: dict[str, Any] = {"version": ssl.TLSVersion.TLSv1_3, "alpn": "app/1", "name": "core.relayed.internal"}
Made = tuple[Suricata, Root, Path, Sessions]


@pytest.fixture(scope="module", params=list(Suricata), ids=lambda version: f"suricata-{version.value}")
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return an engine that a relayed flow crosses, with its configuration, and what makes sessions."""
    version: Suricata = request.param
    root = Root.find() if version is NEWEST else Root(ROOT / ".engine7/root")
    assert root is not None, "make setup"
    assert root.suricata is version, "make setup"
    topology, build = small_topology("relayed", Assurance.TERMINATE), tmp_path_factory.mktemp("relayed") / "build"
    compile_topology(topology, build, version)
    issued = issue_identities(topology, tmp_path_factory.mktemp("identities") / "i", now=datetime.now(UTC))
    ends = (issued.of(topology.nodes[name]) for name in ("alpha", "gamma", "beta"))
    return version, root, build / "core/suricata", Sessions(*ends)


def _raised(made: Made, cuts: tuple[int, ...], **how: Any) -> set[str]:
    _, root, configuration, sessions = made
    capture = packets(sessions.turns(**_GOOD | how), cuts=cuts, ends=_ENDS)
    raised = replay(capture, configuration, "wan", root)
    assert all(each.blocked for each in raised)
    return {each.kind for each in raised}


@pytest.mark.parametrize("cuts", [(), (2,), (200,), (200, 700, 1100)])
@pytest.mark.parametrize("size", [8, MUCH])
def test_a_good_session_passes(size: int, cuts: tuple[int, ...], made: Made) -> None:
    """Nothing is said about it, however much it carries."""
    assert _raised(made, cuts, says=bytes(size), answers=bytes(size)) == set()


@pytest.mark.parametrize("cuts", [(), (2,), (200,)])
@pytest.mark.parametrize(
    ("wrong", "kinds"),
    [
        ({"version": ssl.TLSVersion.TLSv1_2}, {"tls-version"}),
        ({"name": "alpha.relayed.internal"}, {"tls-name"}),
        ({"name": None}, {"tls-name", "tls-no-name"}),
        ({"alpn": "http/1.1"}, {"tls-alpn"}),
    ],
    ids=["TLS 1.2", "another name", "no name", "another protocol"],
)
def test_another_one_does_not(wrong: dict[str, Any], kinds: set[str], cuts: tuple[int, ...], made: Made) -> None:
    """Another version, name or protocol is dropped, in one segment or in two."""
    assert kinds & _raised(made, cuts, **wrong)


@pytest.mark.parametrize("cut", [3, 6, 43, 100])
def test_a_server_hello_in_several_segments_is_dropped(cut: int, made: Made) -> None:
    """Closed, not open: until all of it is there, it reads as one of TLS 1.2."""
    assert _raised(made, (cut,)) == {"tls-version"}
