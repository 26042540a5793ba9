"""A second handshake is seen, and a first one never taken for it, whatever segments they come in; by 8.0 and 7.0."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest

from conformance.lab.rooted import Root
from conformance.pki import issue_identities
from ids_rules.lock import SidLock
from ids_rules.version import NEWEST, Suricata
from netpolicy.build import compile_files
from netpolicy.topology.load import load_topology
from tests.ids.engine import replay
from tests.ids.sessions import SUITES, Sessions, second_hello, second_keys
from tests.ids.transcript import Turn

ROOT = Path(__file__).parents[2]
FIREWALL, INTERFACE = "tachikawa-municipal-fw", "office"
SEGMENTS = (2, 3, 4, 5, 7, 16, 44, 45, 536, 1400, 7000)
"""Sizes: within a record's header and just after it, around a Finished with its header, usual ones, offloaded ones."""
HEADER = 5
"""Length of a record's (RFC 5246, 6.2.1)."""
CUTS = tuple(range(2, 60))
Made = tuple[Sessions, Path, Root]


@pytest.fixture(scope="module", params=list(Suricata), ids=lambda version: f"suricata-{version.value}")
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return sessions, and a configuration with nothing but these signatures, so that nothing else ends a session."""
    version: Suricata = request.param
    root = Root.find() if version is NEWEST else Root(ROOT / ".engine7/root")
    assert root is not None, "make setup"
    assert root.suricata is version, "make setup"
    topology = load_topology(ROOT / "topology.yaml").topology
    configuration = tmp_path_factory.mktemp("configuration")
    for name, text in compile_files(topology, SidLock(), version).items():
        if name.startswith(f"{FIREWALL}/suricata/"):
            (configuration / Path(name).name).write_text(text, encoding="utf-8")
    rules = configuration / "netpolicy.rules"
    kept = [each for each in rules.read_text(encoding="utf-8").splitlines() if ", signature tls-renegotiation" in each]
    rules.write_text("\n".join(kept) + "\n", encoding="utf-8")
    identities = issue_identities(topology, tmp_path_factory.mktemp("identities") / "i", now=datetime.now(UTC))
    ends = [identities.of(topology.nodes[name]) for name in ("tachikawa-registry", "tachikawa-cs", "shinagawa-cs")]
    return Sessions(*ends), configuration, root


def _raised(made: Made, suites: str, again: Sequence[Turn], cuts: Sequence[int], size: int) -> set[str]:
    sessions, configuration, root = made
    raised = replay(sessions.permitted(suites, again, cuts, size), configuration, INTERFACE, root)
    assert all(each.blocked for each in raised)
    return {each.kind for each in raised}


@pytest.mark.parametrize(("suites", "size"), tuple(product(SUITES, SEGMENTS)))
def test_a_first_handshake_is_none(suites: str, size: int, made: Made) -> None:
    """No signature is raised by a session that both suites permit, in segments of any size, or cut at every byte."""
    assert _raised(made, suites, (), (), size) == set()
    assert _raised(made, suites, (), CUTS, size) == set()


@pytest.mark.parametrize(("suites", "size"), tuple(product(SUITES, SEGMENTS)))
def test_a_second_handshake_is_seen(suites: str, size: int, made: Made) -> None:
    """Its hello, unless it is cut within the header, and by itself each side's change of keys, in any case."""
    added = SUITES[suites]
    if size >= HEADER:
        assert _raised(made, suites, [second_hello(added)], (), size) == {"tls-renegotiation-hello"}
    for from_client in (True, False):
        again = [second_keys(added, from_client=from_client)]
        assert _raised(made, suites, again, (), size) == {"tls-renegotiation"}
